"""The stages grounding_model and grounding_scores on a tiny diffusion model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml import GroundedDiffusionPipeline
from ml.__main__ import main
from ml.baselines.daam import threshold_masks
from ml.cli.score_grounding import page, scores_beside, table
from ml.diffusion.encoding import word_embeddings
from ml.diffusion.evidence import leave_one_out
from ml.diffusion.loading import load_pipeline
from ml.diffusion.sampling import sample
from ml.grounding.config import PARTS
from ml.grounding.module import GroundingModule
from ml.grounding.opening import open_module
from ml.grounding.prompting import compose_prompt
from ml.images.facts import picture_facts
from ml.images.png import decode_png, encode_png
from ml.images.run_lengths import decode_rle, encode_rle
from ml.metrics.iou import binary_iou
from ml.pipeline.samples import load_samples
from ml.pipeline.scored import WORDS, read_masks, read_reliability
from ml.pipeline.stages import grounding_model, grounding_scores
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.profile import load_params
from ml.store.making import write_shards
from ml.store.manifest import Manifest, write_manifest
from ml.store.schemas import BENCHMARK, IMAGES, PROMPTS, TRIPLETS
from ml.store.shards import read_shards
from ml.words.cells import CELLS
from ml.words.vocabulary import load_vocabulary
from tests.builders.tiny import save_tiny_pipeline

WORD = {"diningtable": "dining table"}
STEPS = 3


def tiny_params(root: Path) -> Params:
    """The micro profile, cut down to seconds."""
    params = load_params()
    return dataclasses.replace(
        params,
        vocabulary="voc-1",
        shards=dataclasses.replace(params.shards, size=4),
        diffusion=dataclasses.replace(
            params.diffusion,
            model=str(root / "diffusion"),
            steps=STEPS,
            scheduler="DDIMScheduler",
            batch_size=3,
        ),
        grounding=dataclasses.replace(
            params.grounding,
            width=32,
            layers=1,
            heads=2,
            steps=4,
            batch_size=3,
            evaluate_every=2,
            evidence_timesteps=[200],
        ),
        benchmark=dataclasses.replace(params.benchmark, bootstrap=20, daam_thresholds=9),
    )


PLAN = [  # purpose, cell, entities
    *[("train", "two_seen", ["cat", "horse"])] * 6,
    ("train", "one_seen", ["diningtable"]),
    ("sim", "one_seen", ["sheep"]),
    ("sim", "one_unseen", ["dog"]),
    ("sim", "two_seen", ["cat", "sheep"]),
    ("sim", "two_mixed", ["cat", "car"]),
    ("sim", "two_unseen", ["dog", "car"]),
    ("synthetic", "two_mixed", ["cat", "car"]),
    ("synthetic", "one_unseen", ["dog"]),
    ("synthetic", "one_seen", ["bus"]),
    ("synthetic", "two_seen", ["cat", "diningtable"]),
    ("synthetic", "one_seen", ["aeroplane"]),
]


def make_prompts() -> list[dict]:
    rows = []
    for index, (purpose, cell, entities) in enumerate(PLAN):
        words = [WORD.get(e, e) for e in entities]
        text = compose_prompt(words)
        phrases = [f"{'an' if w[0] in 'aeiou' else 'a'} {w}" for w in words]
        rows.append(
            {
                "key": f"{purpose}-{index:06d}",
                "text": text,
                "entities": entities,
                "words": words,
                "phrases": phrases,
                "seed": 100 + index,
                "purpose": purpose,
                "cell": cell,
            }
        )
    return rows


def make_workspace(root: Path, save: Callable[[Path], object] = save_tiny_pipeline) -> Workspace:
    """Finished stages up to triplets, a trained module, and a benchmark with a leaked picture.

    Masks are DAAM's own above 0.4, so that DAAM's score and threshold are known beforehand. save:
    writes the diffusion model, whose pictures are of 64 pixels, to a folder.
    """
    save(root / "diffusion")
    params, workspace = tiny_params(root), Workspace(root, "micro")
    seen = load_vocabulary(params.vocabulary).seen
    prompts = make_prompts()
    write_shards(workspace.folder("prompts"), "r", [prompts], pd.DataFrame, PROMPTS)
    pipe = load_pipeline(workspace.located(params.diffusion))
    drawn = [p for p in prompts if p["purpose"] != "synthetic"]
    made = sample(
        pipe,
        [p["text"] for p in drawn],
        [p["seed"] for p in drawn],
        steps=STEPS,
        guidance_scale=params.diffusion.guidance_scale,
        words=[p["words"] for p in drawn],
    )
    images, triplets = [], []
    for i, prompt in enumerate(drawn):
        daam = made.daam[i].numpy().astype(np.float16)
        facts = picture_facts(made.images[i])
        images.append(
            prompt
            | facts
            | {
                "image": encode_png(made.images[i]),
                "latent": made.latents[i].numpy().tobytes(),
                "latent_shape": list(made.latents[i].shape),
                "timestep": made.timestep,
                "daam": daam.tobytes(),
                "daam_shape": list(daam.shape),
            }
        )
        masks = threshold_masks(daam.astype(np.float32), (64, 64), 0.4)
        subset = "sim" if prompt["purpose"] == "sim" else "validation" if i in (4, 6) else "train"
        for j, entity in enumerate(prompt["entities"]):
            accepted = (i, entity) != (1, "horse")  # one training word lacks its mask
            triplets.append(
                {
                    "key": prompt["key"],
                    "text": prompt["text"],
                    "entity": entity,
                    "word": prompt["words"][j],
                    "phrase": prompt["phrases"][j],
                    "purpose": prompt["purpose"],
                    "cell": prompt["cell"],
                    "subset": subset,
                    "accepted": accepted,
                    "reason": "" if accepted else "no_mask",
                    "score": 0.9,
                    "area": float(masks[j].mean()),
                    "std": facts["std"],
                    "dhash": facts["dhash"],
                    "rle": encode_rle(masks[j]) if accepted else "",
                }
            )
            assert prompt["purpose"] == "sim" or entity in seen
    write_shards(workspace.folder("images"), "r", [images], pd.DataFrame, IMAGES)
    write_shards(workspace.folder("triplets"), "r", [triplets], pd.DataFrame, TRIPLETS)
    leaked = prompts[[p["purpose"] for p in prompts].index("synthetic") + 1]
    picture = sample(
        pipe,
        [leaked["text"]],
        [leaked["seed"]],
        steps=STEPS,
        guidance_scale=params.diffusion.guidance_scale,
    ).images[0]
    facts = picture_facts(picture)
    write_shards(
        workspace.folder("benchmark"),
        "r",
        [
            [
                {
                    "key": "benchmark-000000",
                    "text": "",
                    "entities": ["dog"],
                    "image": encode_png(picture),
                    "label": encode_png(np.zeros((64, 64), np.uint8)),
                    "dhash": facts["dhash"],
                    "sha256": facts["sha256"],
                }
            ]
        ],
        pd.DataFrame,
        BENCHMARK,
    )
    grounding_model.run(params, workspace, "recipe")
    return workspace


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("grounding")
    return tiny_params(root), make_workspace(root)


def test_samples_join_by_key(world):
    samples = load_samples(world[1], ["train"])
    assert [s.key for s in samples] == [f"train-{i:06d}" for i in (0, 1, 2, 3, 5)]
    assert samples[1].present.tolist() == [True, False] and not samples[1].masks[1].any()
    assert samples[0].latent.shape == (6, 16, 16) and samples[0].daam.shape == (2, 16, 16)
    with pytest.raises(ValueError, match="no accepted triplet"):
        load_samples(world[1], ["other"])


def test_pictures_stay_in_their_shards_until_looked_at(world):
    samples = load_samples(world[1], ["train", "sim"])
    stored = read_shards(world[1].folder("images"), ["key", "image"]).set_index("key").image
    assert samples[0].pictures.shard is None
    for own in samples[::-1]:
        assert np.array_equal(own.image, decode_png(stored[own.key]))
        assert own.image.shape[:2] == own.size and own.masks.shape[1:] == own.size
    assert samples[0].pictures.shard == samples[0].shard  # one at a time
    assert len(samples[0].pictures.data) == 12


def test_the_trained_model_is_there(world):
    folder = world[1].folder("grounding_model")
    module = GroundingModule.from_pretrained(folder)
    assert module.config.variant == "seeded" and module.config.evidence_timesteps == (200,)
    curve = pd.read_csv(folder / "curve.csv")
    assert list(curve.columns) == ["step", "loss", "val_miou"] and list(curve.step) == [2, 4]
    assert (folder / "contact_sheet.jpg").is_file()
    # until the runner has written the manifest, so that a kill before that repeats no training
    assert (folder / ".progress" / "training.pt").is_file()


def test_a_leaked_class_stops_the_training(world):
    params, workspace = world
    narrow = load_vocabulary("voc-3")  # split 3 does not see the cat
    assert "cat" in narrow.unseen
    with pytest.raises(ValueError, match="cat"):
        grounding_model.run(dataclasses.replace(params, vocabulary="voc-3"), workspace, "recipe")


def test_protocol_one(world):
    params, workspace = world
    output = grounding_scores.run(params, workspace, "recipe")
    facts = output.facts
    assert list(facts["ours"]) == list(CELLS)
    # the truth was made by DAAM above 0.4, which is among the nine candidates 0.1 to 0.9
    assert facts["daam_threshold"] == pytest.approx(0.4)
    assert list(facts["daam"].values()) == pytest.approx([100] * 5)
    assert facts["daam_training_miou"] == pytest.approx(100)
    assert facts["pictures"] == dict.fromkeys(CELLS, 1)
    rows = pd.read_parquet(workspace.folder("grounding_scores") / "scores.parquet")
    assert list(rows.columns) == grounding_scores.SCORES.names and len(rows) == 8
    assert rows.seen.tolist() == [True, False, True, True, True, False, False, False]
    assert rows.iou_daam.tolist() == pytest.approx([1] * 8)
    mixed = rows[rows.cell == "two_mixed"]
    assert facts["ours"]["two_mixed"] == pytest.approx(100 * mixed.iou_ours.mean())


def test_the_masks_and_how_sure_they_were_are_kept(world):
    params, workspace = world
    facts = grounding_scores.run(params, workspace, "recipe").facts
    folder = workspace.folder("grounding_scores")
    rows = pd.read_parquet(folder / "scores.parquet")
    kept = read_masks(folder, list(rows.key))
    truth = read_shards(workspace.folder("triplets")).set_index(["key", "entity"]).rle
    for row in rows.itertuples():
        ours, true = (decode_rle(each[row.key, row.entity]) for each in (kept, truth))
        assert binary_iou(ours, true) == pytest.approx(row.iou_ours)
    found = read_reliability(folder)
    assert {words: own.count.sum() for words, own in found.items()} == {
        words: int((rows.seen == (words == "seen")).sum()) * 64 * 64 for words in WORDS
    }
    seen = [decode_rle(truth[row.key, row.entity]).sum() for row in rows[rows.seen].itertuples()]
    assert found["seen"].yes.sum() == sum(seen)
    assert facts["calibration_error"]["seen"] == pytest.approx(found["seen"].error)
    both = found["seen"] + found["unseen"]
    assert facts["calibration_error"]["all"] == pytest.approx(both.error)


def test_another_module_is_scored_on_the_same_masks(world):
    """`python -m ml score-grounding`: the run's own module has its own scores again, and one that
    finds nothing has none."""
    params, workspace = world
    grounding_scores.run(params, workspace, "recipe")
    own = GroundingModule.from_pretrained(workspace.folder("grounding_model"))
    rows = scores_beside(params, workspace, own, "own")
    assert len(rows) == 8 and rows.iou_other.tolist() == pytest.approx(rows.iou_ours.tolist())
    found = table(rows, 20)
    assert found["difference"] == dict.fromkeys(CELLS, (0, 0, 0))
    assert found["other"] == found["ours"] and found["masks"]["two_unseen"] == 2

    config = dataclasses.replace(own.config, variant="paper", **PARTS["paper"])
    blind = GroundingModule(config)
    for parameter in blind.mask_embedding[-1].parameters():
        parameter.data.zero_()  # every logit is 0, and no pixel above it
    rows = scores_beside(params, workspace, blind, "blind")
    found = table(rows, 20)
    assert rows.iou_other.tolist() == [0] * 8
    assert [found["difference"][cell][0] for cell in CELLS] == pytest.approx(
        [-found["ours"][cell] for cell in CELLS]
    )
    lines = page(found, "blind", "micro").splitlines()
    assert len(lines) == 6 and lines[1].startswith("one object, seen") and " 0.0 " in lines[1]


def test_taught_queries_are_scored_with_their_module(world, tmp_path, monkeypatch, capsys):
    """Of a folder that `teach --what query` wrote: the words with a query, and no others."""
    params, workspace = world
    grounding_scores.run(params, workspace, "recipe")
    for stage in ("images", "triplets", "grounding_scores"):
        write_manifest(workspace.folder(stage), Manifest(stage, 1, {}, {}, {}, {}))
    pipe = load_pipeline(workspace.located(params.diffusion))
    own = GroundingModule.from_pretrained(workspace.folder("grounding_model"))
    taught = {"dog": -50 * word_embeddings(pipe, ["dog"])[0]}
    GroundedDiffusionPipeline(pipe, own, queries=taught).save_pretrained(tmp_path)
    module, queries = open_module(tmp_path)
    assert queries["dog"].equal(taught["dog"])
    rows = scores_beside(params, workspace, module, "taught", queries)
    changed = ~np.isclose(rows.iou_other, rows.iou_ours)
    assert "dog" in set(rows.entity[changed]) <= {"dog", "car"}  # the two of one picture compete

    monkeypatch.setattr("ml.settings.profile.load_params", lambda _: params)
    assert main(["score-grounding", str(tmp_path), "--root", str(workspace.root)]) == 0
    found = table(rows, params.benchmark.bootstrap)
    assert capsys.readouterr().out == page(found, str(tmp_path), "micro") + "\n"


def test_pictures_are_grounded_in_the_profiles_batches(world, monkeypatch):
    """Evidence has several passes a picture, which the engine cuts into batches of its own."""
    params, workspace = world
    params = dataclasses.replace(
        params, diffusion=dataclasses.replace(params.diffusion, device="cpu", batch_size=2)
    )
    sizes = []

    def noted(*arguments):
        sizes.append(arguments[-1])  # passes at once
        return leave_one_out(*arguments)

    monkeypatch.setattr("ml.grounding.features.leave_one_out", noted)
    grounding_scores.run(params, workspace, "recipe")
    own = GroundingModule.from_pretrained(workspace.folder("grounding_model"))
    scores_beside(params, workspace, own, "own")
    assert sizes == [2, 2, 2] * 2  # of five pictures, in the stage and in the command


def test_a_module_that_does_not_fit_the_run_is_not_scored(world):
    params, workspace = world
    own = GroundingModule.from_pretrained(workspace.folder("grounding_model"))
    for changes, expected in (
        ({"text_width": 8}, "theirs: the diffusion model has .* words of 16.* takes .* and 8"),
        ({"feature_timestep": 999}, "was trained on 999"),
    ):
        other = GroundingModule(dataclasses.replace(own.config, **changes))
        with pytest.raises(ValueError, match=expected):
            scores_beside(params, workspace, other, "theirs")


def test_a_folder_of_an_earlier_version_has_neither(tmp_path):
    assert read_masks(tmp_path, ["a"]) is None and read_reliability(tmp_path) == {}
