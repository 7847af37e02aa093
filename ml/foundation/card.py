"""The model card of the micro checkpoints: `card.json` for programs, `MODEL_CARD.md` for people.

Here: what is kept and how it is worded. Not here: measuring (`measure.py`).
"""

import csv
import json
from pathlib import Path

from safetensors import safe_open

from ml.store.files import write_json
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

# work folders of the trainers, in the order of their sections on the card
TRAINERS = (
    "autoencoder",
    "diffusion",
    "diffusion_continued",
    "transformer",
    "transformer_continued",
    "backbone",
    "detector",
    "judge",
)


def update_card(folder: Path, training: Path, part: str, figures: dict) -> None:
    """Puts one part's figures into card.json and writes MODEL_CARD.md anew from all parts.

    folder: data/foundation/micro. training: holds <model>/settings.json where a training was run
    on this machine; settings already on the card stay otherwise.
    """
    file = folder / "card.json"
    card = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    card.setdefault("measured", {})[part] = figures
    card["checkpoints"] = {
        name: weigh(folder / name) for name in CHECKPOINTS if (folder / name).is_dir()
    }
    models = sorted({name.partition("/")[0] for name in card["checkpoints"]})
    card["sha256"] = {name: sha256_folder(folder / name) for name in models}  # stages compare it
    trained = card.setdefault("trained", {})
    for name in TRAINERS:
        settings, curve = training / name / "settings.json", training / name / "curve.csv"
        if settings.is_file():
            trained[name] = json.loads(settings.read_text(encoding="utf-8"))
        if settings.is_file() and curve.is_file():
            with curve.open(newline="") as rows:
                *_, last = csv.DictReader(rows)
            spent = {key: last[key] for key in ("step", "samples", "seconds", "loss")}
            trained[name] |= {f"at the end: {key}": value for key, value in spent.items()}
    write_json(file, card)
    (folder / "MODEL_CARD.md").write_text(card_text(card), encoding="utf-8")


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
    for name, facts in card["checkpoints"].items():
        count = f"{facts['parameters'] / 1e6:.2f} M"
        lines.append(f"| `{name}` | {CHECKPOINTS[name]} | {count} | {facts['megabytes']:.2f} |")
    total = sum(facts["megabytes"] for facts in card["checkpoints"].values())
    lines += [f"| together | | | {total:.2f} |"]
    for name, settings in card["trained"].items():
        lines += ["", f"## How {name} was trained", "", "| setting | value |", "|---|---|"]
        lines += [f"| {key} | {value} |" for key, value in settings.items()]
    return "\n".join(lines) + "\n"
