"""The model card of the micro checkpoints: `card.json` for programs, `MODEL_CARD.md` for people.

Here: what is kept and how it is worded. Not here: measuring (`measure.py`).
"""

import csv
import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file

from ml.store.files import atomic, write_json
from ml.store.folder_digest import sha256_folder

# (part, figure, what it is, unit, target); a figure without a target has None.
FIGURES = (
    ("autoencoder", "psnr_db", "autoencoder, PSNR on fresh scenes", "dB", 30),
    ("pictures", "one_object_seen", "one-object pictures in which the judge sees the class",
     "%", 97),
    ("pictures", "worst_class_seen", "the same, worst class", "%", 85),
    ("pictures", "two_objects_exactly", "two-object pictures in which it sees exactly both",
     "%", 88),
    ("pictures", "two_objects_both_seen", "two-object pictures in which it sees both and perhaps "
     "more", "%", None),
    ("pictures", "seconds_a_picture", "sampling a picture", "s", None),
    ("transformer", "one_object_seen", "transformer, one-object pictures in which the judge sees "
     "the class", "%", 97),
    ("transformer", "worst_class_seen", "the same, worst class", "%", None),
    ("transformer", "two_objects_exactly", "transformer, two-object pictures in which it sees "
     "exactly both", "%", 85),
    ("transformer", "two_objects_both_seen", "transformer, two-object pictures in which it sees "
     "both and perhaps more", "%", None),
    ("transformer", "seconds_a_picture", "transformer, sampling a picture", "s", None),
    ("judge", "exact_set", "judge, exact set of classes on fresh drawn scenes", "%", None),
    ("detector", "mask_ap50", "detector, mask AP50 on fresh scenes (pycocotools)", "%", 85),
    ("detector", "mask_ap", "detector, mask AP (IoU 0.5 to 0.95)", "%", None),
    ("detector", "pictures_a_second", "detector, pictures a second", "", None),
    ("backbone", "mean_average_precision", "backbone, mAP of the classes on fresh scenes",
     "%", None),
    ("backbone", "exact_set", "backbone, exact set of classes", "%", None),
)  # fmt: skip

# folder: what it is and what it learned from
CHECKPOINTS = {
    "diffusion/vae": "`AutoencoderKL`, trained on drawn scenes",
    "diffusion/unet": "`UNet2DConditionModel`, trained on drawn scenes and their captions",
    "diffusion/text_encoder": "`CLIPTextModel`, trained together with the U-Net",
    "transformer/transformer": "`SD3Transformer2DModel`, trained on drawn scenes and captions",
    "transformer/text_encoder": "`CLIPTextModelWithProjection`, from the U-Net's, trained together "
    "with the transformer",
    "transformer/text_encoder_2": "`CLIPTextModelWithProjection`, trained likewise from nothing",
    "detector": "Mask R-CNN over 20 classes, trained on drawn scenes and their masks",
    "backbone": "`ResNetForImageClassification`, trained on image labels; never saw a mask",
    "judge": "a plain CNN that names the classes in a picture; only measures, labels nothing",
}

# part that is measured: folder of the model that its figures are about
MODELS = {
    "autoencoder": "diffusion",
    "pictures": "diffusion",
    "transformer": "transformer",
    "judge": "judge",
    "detector": "detector",
    "backbone": "backbone",
}

# work folder of a trainer: the part that measures what it exports
TRAINERS = {
    "autoencoder": "autoencoder",
    "diffusion": "pictures",
    "diffusion_continued": "pictures",
    "transformer": "transformer",
    "transformer_continued": "transformer",
    "transformer_several": "transformer",
    "transformer_mixed": "transformer",
    "backbone": "backbone",
    "detector": "detector",
    "judge": "judge",
}

LARGE = 1000
"""Numbers of a weight, from which on an export must have it as it was trained: an autoencoder's few
smaller ones are changed so that its latents have deviation 1."""


def update_card(folder: Path, training: Path, part: str, figures: dict) -> None:
    """Puts one part's figures into card.json and writes MODEL_CARD.md anew from all parts.

    Only the model that the part is about gets its digest, sizes and trainings stated anew: the card
    vouches for what was measured. If its files are others than at the last measurement, its other
    parts' figures are dropped. folder: data/foundation/micro. training: holds <trainer>/ with the
    checkpoint, settings.json and curve.csv of a training that was run on this machine; it is put on
    the card when the model `holds` its weights, and what is on the card stays otherwise.

    Raises ValueError when the model's folder does not exist.
    """
    file, model = folder / "card.json", MODELS[part]
    card = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    measured, stated = card.setdefault("measured", {}), card.setdefault("sha256", {})
    digest = sha256_folder(folder / model)
    if stated.get(model) != digest:
        for other in [other for other in measured if MODELS[other] == model]:
            del measured[other]
    measured[part] = figures
    stated[model] = digest  # stages compare it
    checkpoints = card.setdefault("checkpoints", {})
    for name in CHECKPOINTS:
        if name.partition("/")[0] == model and (folder / name).is_dir():
            checkpoints[name] = weigh(folder / name)
    for name, measured_by in TRAINERS.items():
        if measured_by == part and holds(folder / model, training / name):
            card.setdefault("trained", {})[name] = _told(training / name)
    write_json(file, card)
    with atomic(folder / "MODEL_CARD.md") as temporary:
        temporary.write_text(card_text(card), encoding="utf-8")


def holds(model: Path, work: Path) -> bool:
    """Whether a model's folder has the weights of a training's last checkpoint: in float16, every
    averaged one with at least 1000 numbers. False where `work` has no checkpoint."""
    checkpoint = work / "checkpoint.safetensors"
    if not checkpoint.is_file():
        return False
    with safe_open(checkpoint, "pt") as file:
        averages = [
            file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118 (safe_open is no mapping)
            if name.startswith("ema.")
        ]
    exported = {
        tensor.half().numpy().tobytes()
        for weights in model.rglob("*.safetensors")
        for tensor in load_file(weights).values()
    }
    large = [average for average in averages if average.numel() >= LARGE]
    return bool(large) and all(each.half().numpy().tobytes() in exported for each in large)


def _told(work: Path) -> dict[str, object]:
    """The settings of a training and how far it went."""
    settings = json.loads((work / "settings.json").read_text(encoding="utf-8"))
    with (work / "curve.csv").open(newline="") as rows:
        *_, last = csv.DictReader(rows)
    spent = ("step", "samples", "seconds", "loss")
    return settings | {f"at the end: {key}": last[key] for key in spent}


def weigh(folder: Path) -> dict[str, float]:
    """{"parameters": count without BatchNorm's running statistics, "megabytes": of the weights}."""
    count, size = 0, 0
    for file in sorted(folder.glob("*.safetensors")):
        size += 0 if file.is_symlink() else file.stat().st_size
        with safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safe_open is no mapping)
                if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
                    product = 1
                    for side in tensors.get_slice(name).get_shape():
                        product *= side
                    count += product
    return {"parameters": count, "megabytes": round(size / 1e6, 3)}


def card_text(card: dict) -> str:
    measured = card["measured"]
    lines = [
        "# The micro checkpoints",
        "",
        "Small models of the drawn world: 64×64 scenes of the 20 PASCAL VOC classes",
        "(`ml/drawn_world/`). They were trained from random weights on drawn scenes alone; no",
        "photograph, no download, no other model is in them. They stand in for Stable Diffusion, a",
        "COCO Mask R-CNN and an ImageNet backbone where those can't be had, and know nothing of",
        "photographs.",
        "",
        "## Measured",
        "",
        "On scenes and seeds that no training used, by `python -m ml.foundation.measure --what",
        "all`; sampling with DPM-Solver++, of the transformer with Euler's steps, 15 steps,",
        "guidance 4, in batches of 40. The judge is a",
        "CNN of another architecture trained on other scenes, so that a wrong class in a generated",
        "picture is the generator's.",
        "",
        "| figure | measured | target |",
        "|---|---|---|",
    ]
    for part, figure, words, unit, target in FIGURES:
        if figure not in measured.get(part, {}):
            continue
        value = measured[part][figure]
        if figure == "worst_class_seen":
            words = f"{words} ({measured[part]['worst_class']})"
        goal = "" if target is None else f"{target} {unit}{'' if value >= target else ', missed'}"
        lines.append(f"| {words} | {value:.2f} {unit} | {goal} |")
    if by_class := measured.get("pictures", {}).get("by_class"):
        shares = ", ".join(f"{name} {share:.0f}" for name, share in by_class.items())
        lines += ["", f"One-object pictures by class, %: {shares}."]
    lines += ["", "## Parts", "", "| folder | what it is | parameters | MB |", "|---|---|---|---|"]
    for name in (name for name in CHECKPOINTS if name in card["checkpoints"]):
        facts = card["checkpoints"][name]
        count = f"{facts['parameters'] / 1e6:.2f} M"
        lines.append(f"| `{name}` | {CHECKPOINTS[name]} | {count} | {facts['megabytes']:.2f} |")
    total = sum(facts["megabytes"] for facts in card["checkpoints"].values())
    lines += [f"| together | | | {total:.2f} |"]
    for name, settings in card.get("trained", {}).items():
        lines += ["", f"## How {name} was trained", "", "| setting | value |", "|---|---|"]
        lines += [f"| {key} | {value} |" for key, value in settings.items()]
    return "\n".join(lines) + "\n"
