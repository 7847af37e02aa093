"""The registry: registered once, promoted by the verdict, loaded where nothing is known of us.

The models are real ones with random weights, so that loading and predicting are the real thing.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from ml.errors import ManifestError
from ml.pipeline.runner import run_stage
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT
from ml.store.manifest import read_manifest
from ml.words.vocabulary import load_vocabulary
from orchestration.assets import promote as promote_asset
from orchestration.mlflow import champion, packaging, run_content
from orchestration.mlflow.as_made import as_made, side_of
from orchestration.mlflow.packaging import pack_grounding, requirements
from orchestration.mlflow.record import outdated
from orchestration.mlflow.registry import SCORES, Registry
from orchestration.resources import Project
from orchestration.turns import checkout_turn
from tests.builders import handmade

PREDICT = """
import sys
import mlflow, numpy as np
model = mlflow.pyfunc.load_model("models:/segmenter-ci@champion")
images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
labels = model.predict(images)
assert labels.dtype == np.uint8 and labels.shape == (2, 64, 64), (labels.dtype, labels.shape)
try:
    model.predict(images.astype(np.float32) / 255)
except mlflow.exceptions.MlflowException:
    pass
else:
    sys.exit("the signature let floats in")
np.save(sys.argv[1], labels)
"""
GROUND = """
import pandas as pd
model = mlflow.pyfunc.load_model("models:/grounding-ci@champion")
png = open(sys.argv[2], "rb").read()
masks = model.predict(pd.DataFrame({"image": [png, png], "words": [["dog"], ["dog", "cat"]]}))
print([len(row) for row in masks["masks"]])
from pycocotools import mask as coco
import json
never = model.predict(pd.DataFrame({"image": [png], "words": [["dog", "cat"]]}),
                      params={"min_presence": 1e6})
print([int(coco.area(json.loads(rle))) for rle in never["masks"][0]])
"""


def tiny_weights(workspace: Workspace, stage: str) -> None:
    """Random but real: a MaskFormer in `model/`, a grounding module of the tiny pipeline."""
    folder = workspace.folder(stage)
    if stage == "grounding_model":
        from ml.diffusion.features import feature_channels
        from ml.grounding.config import make_config
        from ml.grounding.module import GroundingModule
        from tests.builders.tiny import tiny_pipeline

        pipe = tiny_pipeline()
        config = make_config(
            handmade.params_of(workspace).grounding,
            feature_channels(pipe.unet),
            pipe.text_encoder.config.hidden_size,
            64,
            1,
        )
        GroundingModule(config).save_pretrained(folder)
        return
    from ml.segmenters.maskformer import build

    params = handmade.params_of(workspace)
    names = ["background", *load_vocabulary(params.vocabulary).classes]
    backbone = Path(workspace.model(params.segmenter.backbone))
    build(backbone, names, params.segmenter).save_pretrained(folder / "model")


def foundation_models(root: Path) -> None:
    from tests.builders.tiny import tiny_pipeline

    micro = root / "data" / "foundation" / "micro"
    tiny_pipeline().save_pretrained(micro / "diffusion", safe_serialization=True)
    ResNetForImageClassification(
        ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], layer_type="basic"
        )
    ).save_pretrained(micro / "backbone")


def write_trained(workspace: Workspace, stage: str) -> None:
    tiny_weights(workspace, stage)
    handmade.write_model(workspace, stage)


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Workspace:
    """A workspace whose models are trained and scored, no registry yet."""
    root = tmp_path_factory.mktemp("scored")
    torch.manual_seed(0)
    foundation_models(root)
    handmade.foundation(root)
    workspace = Workspace(root, "ci")
    for stage in ("prompts", "benchmark", "images", "masks", "triplets"):
        handmade.write_bare(workspace, stage)
    write_trained(workspace, "grounding_model")
    handmade.write_stage("grounding_scores", workspace, handmade.grounding_facts())
    handmade.write_bare(workspace, "synthetic_dataset")
    write_trained(workspace, "segmenter")
    write_trained(workspace, "real_bound")
    handmade.write_stage("benchmark_scores", workspace, handmade.segmenter_facts())
    handmade.write_verdict(workspace)
    return workspace


def registry_of(workspace: Workspace) -> Registry:
    root = workspace.root
    return Registry(
        f"sqlite:///{root}/mlflow.db",
        str(root / "mlartifacts"),
        handmade.params_of(workspace),
        workspace,
    )


@pytest.fixture(scope="module")
def promoted(scored) -> Workspace:
    """Both models registered and promoted."""
    registry = registry_of(scored)
    assert registry.champions() == {}
    assert registry.log_challengers() == {
        "grounding": "models:/grounding-ci/1",
        "segmenter": "models:/segmenter-ci/1",
    }
    assert not [name for name in sys.modules if re.match(r"ml_[0-9a-f]{12}", name)], (
        "what MLflow loaded of one model to try its example would be the next model's code"
    )
    registry.sync_champions()
    assert not outdated(scored)
    shown = registry.apply_verdict()
    assert shown["champion_segmenter"] == "models:/segmenter-ci/1"
    return scored


@pytest.fixture
def workspace(promoted, tmp_path) -> Workspace:
    """A copy of the promoted workspace; its artifacts stay where they were written: a thousand
    files, most of them the code of the models."""
    left = shutil.ignore_patterns("mlartifacts")
    shutil.copytree(promoted.root, tmp_path, dirs_exist_ok=True, ignore=left)
    return Workspace(tmp_path, "ci")


def versions(registry: Registry, name: str) -> list[str]:
    return sorted(
        str(v.version)
        for v in registry.client.search_model_versions(f"name = '{registry.names[name]}'")
    )


def test_a_model_that_was_logged_and_not_registered_is_removed(workspace):
    """MLflow records a model before its files and its version: a kill in between leaves it."""
    registry = registry_of(workspace)
    client, model = registry.client, "segmenter"
    (first,) = [m for m in client.search_logged_models([registry.experiment]) if m.name == model]
    client.delete_model_version(registry.names[model], "1")
    half = client.create_logged_model(registry.experiment, model, first.source_run_id)
    assert registry.log_challenger(model) == "models:/segmenter-ci/2"
    (left,) = [m for m in client.search_logged_models([registry.experiment]) if m.name == model]
    assert left.model_id not in (first.model_id, half.model_id) and left.status == "READY"


def test_a_version_tells_what_it_is(promoted):
    registry = registry_of(promoted)
    version = registry.client.get_model_version_by_alias("segmenter-ci", "champion")
    manifest = read_manifest(promoted.folder("segmenter"))
    assert version.tags["manifest_sha"] == manifest.digest
    assert "## Scores" in version.description
    run = registry.client.get_run(version.run_id)
    assert run.data.metrics["synthetic/harmonic"] == 58.0
    assert run.data.params["segmenter/steps"] == str(manifest.params["segmenter"]["steps"])
    digests = {d.dataset.name: d.dataset.digest for d in run.inputs.dataset_inputs}
    assert digests["synthetic_dataset"] == manifest.inputs["synthetic_dataset"][:36]
    names = {file.path for file in registry.client.list_artifacts(version.run_id)}
    assert {"model_card.md", "champion"} <= names
    info = registry.mlflow.models.get_model_info("models:/segmenter-ci@champion")
    assert info.signature.inputs.to_dict()[0]["tensor-spec"]["dtype"] == "uint8"


def test_a_run_holds_curve_pictures_and_data(promoted):
    """What MLflow's pages compare: the curve over its steps, pictures that they show, the digests
    of what it learned from and of what it was scored on."""
    client = registry_of(promoted).client
    for model, stage in (("segmenter", "segmenter"), ("grounding", "grounding_model")):
        run_id = client.get_model_version_by_alias(f"{model}-ci", "champion").run_id
        written = (promoted.folder(stage) / "curve.csv").read_text().splitlines()[1:]
        known = [line.split(",") for line in written]
        history = client.get_metric_history(run_id, "curve/loss")
        assert [(m.step, m.value) for m in history] == [(int(s), float(v)) for s, v, _ in known]
        names = {file.path for file in client.list_artifacts(run_id, "pictures")}
        assert f"pictures/{stage} curve.png" in names
        uses = {}
        for used in client.get_run(run_id).inputs.dataset_inputs:
            (context,) = [tag.value for tag in used.tags if tag.key == "mlflow.data.context"]
            uses.setdefault(context, set()).add((used.dataset.name, used.dataset.digest))
        made = read_manifest(promoted.folder(stage)).inputs
        assert uses["training"] == {(name, digest[:36]) for name, digest in made.items()}
        scores = read_manifest(promoted.folder(SCORES[model])).inputs
        assert uses["scores"] == {(f"scores: {n}", d[:36]) for n, d in scores.items()}


def test_a_long_curve_is_thinned_to_its_end(tmp_path):
    from mlflow.entities import Metric

    class Store:
        """As much of a store as a curve needs."""

        points: list[Metric] = []

        def get_run(self, run_id):
            return type("Run", (), {"data": type("Data", (), {"metrics": {}})})

        def log_batch(self, run_id, metrics):
            assert len(metrics) <= 1000
            self.points += metrics

    lines = [f"{step},{step / 2},{'' if step % 100 else step}" for step in range(1, 12346)]
    (tmp_path / "curve.csv").write_text("\n".join(["step,loss,val_miou", *lines]))
    run_content._log_curve(store := Store(), "run", tmp_path)
    loss = [(m.step, m.value) for m in store.points if m.key == "curve/loss"]
    assert 400 < len(loss) <= 500 and loss[-1] == (12345, 6172.5)
    assert len([m for m in store.points if m.key == "curve/val_miou"]) == 123


def test_runs_of_two_profiles_have_the_same_names_and_can_be_compared(promoted, tmp_path):
    """Two experiments of one store, since a profile has an experiment of its own."""
    shutil.copytree(promoted.root, tmp_path, dirs_exist_ok=True)
    (tmp_path / "data" / "ci").rename(tmp_path / "data" / "split2")
    first, other = registry_of(promoted), Workspace(tmp_path, "split2")
    client = first.client
    made = Registry(
        f"sqlite:///{promoted.root}/mlflow.db",
        str(tmp_path / "mlartifacts"),
        handmade.params_of(other),
        other,
    )
    assert made.experiment != first.experiment
    assert made.log_challenger("segmenter") == "models:/segmenter-split2/1"
    runs = client.search_runs(
        [first.experiment, made.experiment], "tags.registered_name = 'segmenter'"
    )
    assert {run.data.tags["profile"] for run in runs} == {"ci", "split2"}
    assert {run.info.run_name.split()[0] for run in runs} == {"segmenter-ci", "segmenter-split2"}
    ours, theirs = (set(run.data.metrics) for run in runs)
    assert ours == theirs and {"synthetic/unseen", "curve/loss", "training/val_miou"} <= ours


def test_a_run_of_an_older_version_is_completed_once(workspace):
    registry = registry_of(workspace)
    run_id = registry.client.get_model_version_by_alias("segmenter-ci", "champion").run_id
    registry.client.delete_tag(run_id, "content")
    for _ in range(2):
        registry.log_challengers()
    assert registry.client.get_run(run_id).data.tags["content"] == run_content.CONTENT
    assert len(registry.client.get_metric_history(run_id, "curve/loss")) == 20, "and not forty"


def test_the_same_thing_twice_adds_no_version(workspace):
    for _ in range(2):
        registry = registry_of(workspace)
        registry.log_challengers()
        registry.sync_champions()
        assert not outdated(workspace)
        registry.apply_verdict()
    for name in ("grounding", "segmenter"):
        assert versions(registry, name) == ["1"]
        assert registry.alias(name, "previous") is None
    assert len(registry.client.search_runs([registry.experiment])) == 2


def retrain(workspace: Workspace, steps: int) -> None:
    curve = workspace.folder("segmenter") / "curve.csv"
    curve.write_text(curve.read_text() + f"{steps},0.01,\n")
    handmade.write_stage("segmenter", workspace, {"steps": steps})
    handmade.write_stage("benchmark_scores", workspace, handmade.segmenter_facts(70.0))


def test_scores_of_an_older_model_are_not_logged_to_a_newer_one(workspace):
    handmade.write_stage("segmenter", workspace, {"steps": 99})
    registry = registry_of(workspace)
    with pytest.raises(ManifestError, match="scores of another model.*ml benchmark_scores"):
        registry.log_challenger("segmenter")
    assert versions(registry, "segmenter") == ["1"]
    assert len(registry.client.search_runs([registry.experiment])) == 2, "no run of it either"


def test_a_better_model_becomes_champion_and_the_old_one_is_kept(workspace):
    retrain(workspace, 21)
    registry = registry_of(workspace)
    registry.log_challengers()
    registry.sync_champions()
    assert not outdated(workspace), "the record is the champion's already"
    handmade.write_verdict(workspace, promote=True)
    registry.apply_verdict()
    assert versions(registry, "segmenter") == ["1", "2"]
    assert versions(registry, "grounding") == ["1"]
    assert registry.champions() == {
        "grounding": "models:/grounding-ci/1",
        "segmenter": "models:/segmenter-ci/2",
    }
    assert registry.alias("segmenter", "previous") == "1"


def test_the_record_follows_the_registry(workspace):
    """A fresh clone with a shared registry, a rollback, a registry that was removed."""
    registry, folder = registry_of(workspace), workspace.data / "champion" / "segmenter"
    digest = read_manifest(workspace.folder("segmenter")).digest
    shutil.rmtree(folder)
    assert outdated(workspace)
    registry.sync_champions()
    assert not outdated(workspace), "the verdict was about this champion"
    assert json.loads((folder / "record.json").read_text())["digest"] == digest
    assert (folder / "scores.parquet").read_bytes() == (
        workspace.folder("benchmark_scores") / "scores.parquet"
    ).read_bytes()
    registry.client.delete_registered_model_alias("segmenter-ci", "champion")
    registry.sync_champions()
    assert folder.exists(), "its model is still there"
    (folder / "record.json").write_text('{"digest": "of nobody"}')
    registry.sync_champions()
    assert outdated(workspace) and not folder.exists()


def test_a_rejected_model_stays_challenger(workspace):
    retrain(workspace, 22)
    registry = registry_of(workspace)
    registry.log_challengers()
    handmade.write_verdict(workspace, promote=False)
    registry.apply_verdict()
    assert registry.champions()["segmenter"] == "models:/segmenter-ci/1"
    assert registry.alias("segmenter", "challenger") == "2"
    version = registry.client.get_model_version("segmenter-ci", "2")
    assert version.tags["verdict"] == "too low"


def test_new_scores_of_the_same_model_add_no_version(workspace):
    handmade.write_stage("benchmark_scores", workspace, handmade.segmenter_facts(61.0))
    registry = registry_of(workspace)
    registry.log_challengers()
    assert versions(registry, "segmenter") == ["1"]
    version = registry.client.get_model_version("segmenter-ci", "1")
    assert registry.client.get_run(version.run_id).data.metrics["synthetic/seen"] == 61.0


def clean_process(code: str, arguments: list[str], uri: str, folder: Path):
    """A Python that knows nothing of this checkout, isolated, in another folder; nor of the last
    registry of this process, which MLflow notes in the environment."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW"))}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=env | {"MLFLOW_TRACKING_URI": uri},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_no_pickle_and_pinned_requirements(promoted):
    files = [p.suffix for p in (promoted.root / "mlartifacts").rglob("*") if p.is_file()]
    assert ".safetensors" in files and not {".pkl", ".pt", ".pth", ".bin"} & set(files)
    file = next((promoted.root / "mlartifacts").rglob("requirements.txt"))
    assert set(requirements()) <= set(file.read_text().split())
    assert f"torch=={torch.__version__.partition('+')[0]}" in requirements()


def promote(workspace: Workspace) -> dict[str, str]:
    """What the asset `promotion` does, without the checks of its inputs."""
    registry = registry_of(workspace)
    registry.log_challengers()
    registry.sync_champions()
    params, force = handmade.params_of(workspace), outdated(workspace)
    run_stage("promotion", params, workspace.root, force=force)
    return registry.apply_verdict()


def test_a_rollback_stays_until_a_new_model_wins(workspace, capsys):
    shutil.rmtree(workspace.data / "champion")  # it comes back from the registry
    retrain(workspace, 23)
    assert promote(workspace)["champion_segmenter"] == "models:/segmenter-ci/2"
    arguments = ["segmenter", "--profile", "ci", "--root", str(workspace.root)]
    assert champion.main([*arguments, "--set", "previous"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "models:/segmenter-ci/1  champion",
        "models:/segmenter-ci/2  previous, challenger",
    ]
    for _ in range(2):
        shown = promote(workspace)
        assert shown["champion_segmenter"] == "models:/segmenter-ci/1"
        assert "was champion before" in shown["verdict_segmenter"]
    record = json.loads((workspace.data / "champion" / "segmenter" / "record.json").read_text())
    registry = registry_of(workspace)
    assert (
        record["digest"]
        == registry.client.get_model_version("segmenter-ci", "1").tags["manifest_sha"]
    ), "the next one is compared with the old model"
    registry.client.delete_registered_model_alias("segmenter-ci", "champion")
    assert "champion_segmenter" not in promote(workspace), "retired by hand"
    retrain(workspace, 24)
    assert promote(workspace)["champion_segmenter"] == "models:/segmenter-ci/3"
    assert champion.main([*arguments, "--set", "9"]) == 2
    assert "no version '9'" in capsys.readouterr().err


def test_a_model_crowned_by_hand_is_what_the_next_is_compared_with(workspace):
    shutil.rmtree(workspace.data / "champion")
    promote(workspace)
    retrain(workspace, 25)
    registry = registry_of(workspace)
    registry.log_challengers()
    registry.client.set_registered_model_alias("segmenter-ci", "champion", "2")  # in MLflow's UI
    assert promote(workspace)["champion_segmenter"] == "models:/segmenter-ci/2"
    record = json.loads((workspace.data / "champion" / "segmenter" / "record.json").read_text())
    assert record["digest"] == read_manifest(workspace.folder("segmenter")).digest


def test_a_champion_that_came_meanwhile_is_compared_with_even_after_a_kill(workspace):
    """The gate chose a model without the registry, where a better one became champion; the run
    that heard of it was killed before it had chosen again."""
    shutil.rmtree(workspace.data / "champion")
    promote(workspace)
    retrain(workspace, 27)
    run_stage("promotion", handmade.params_of(workspace), workspace.root)
    chosen = read_manifest(workspace.folder("segmenter")).digest
    registry = registry_of(workspace)
    with pytest.MonkeyPatch.context() as patch:  # a colleague's, from a copy of the folder
        patch.setattr(handmade, "write_scores", partial(handmade.write_scores, right=999_000))
        patch.setattr(registry, "workspace", colleagues(workspace))
        registry.log_challenger("segmenter")
        registry.move_title("segmenter", "2")
    registry.log_challengers()
    with pytest.raises(ValueError, match="version 2 of 'segmenter-ci' became champion while"):
        registry.apply_verdict()
    registry.sync_champions()
    record = workspace.data / "champion" / "segmenter" / "record.json"
    assert json.loads(record.read_text())["digest"] != chosen
    shown = promote(workspace)  # the same command again
    assert shown["champion_segmenter"] == "models:/segmenter-ci/2"
    assert "regression" in shown["verdict_segmenter"]
    assert promote(workspace) == shown


def colleagues(workspace: Workspace) -> Workspace:
    """Another checkout of the same profile, with a better segmenter of its own."""
    other = Workspace(workspace.root / "elsewhere", "ci")
    shutil.copytree(workspace.data, other.data)
    shutil.copytree(workspace.root / "data" / "foundation", other.root / "data" / "foundation")
    retrain(other, 28)
    return other


def test_promotions_of_one_checkout_take_turns(workspace, caplog):
    """Two at once logged the same model twice, or removed what the other was logging."""
    project = Project(
        profile="ci",
        root=str(workspace.root),
        tracking_uri=f"sqlite:///{workspace.root}/mlflow.db",
        artifacts=str(workspace.root / "mlartifacts"),
    )
    shutil.rmtree(workspace.data / "champion")
    retrain(workspace, 29)
    registry = registry_of(workspace)
    with ThreadPoolExecutor() as pool:
        with checkout_turn(workspace.root, "promotion", "the test"):
            waiting = pool.submit(promote_asset, project, "promotion")
            end = time.monotonic() + 60
            while "waits for the test" not in caplog.text:
                assert time.monotonic() < end and not waiting.done()
                time.sleep(0.05)
            assert versions(registry, "segmenter") == ["1"]
        shown = waiting.result().metadata
    assert shown["champion_segmenter"] == "models:/segmenter-ci/2"
    assert versions(registry, "segmenter") == ["1", "2"]


def test_a_model_is_packed_as_it_was_trained_whatever_the_profile_says_by_now(workspace, tmp_path):
    params = handmade.params_of(workspace)
    trained = read_manifest(workspace.folder("grounding_model")).params["diffusion"]
    edited = dataclasses.replace(
        params.diffusion, steps=trained["steps"] + 1, guidance_scale=9.0, model="another/model"
    )
    asked = dataclasses.replace(params, diffusion=edited)
    made = as_made("grounding_model", asked, workspace)
    pack_grounding(workspace, made, tmp_path / "packed")
    packed = json.loads((tmp_path / "packed" / "pipeline.json").read_text())
    assert packed["diffusion"] == "diffusion" and packed["steps"] == trained["steps"]
    assert packed["guidance_scale"] == trained["guidance_scale"]
    drew = as_made("synthetic_dataset", asked, workspace)
    assert side_of(made, workspace) == side_of(drew, workspace) > 0

    config = workspace.root / "data" / "foundation" / "micro" / "diffusion" / "model_index.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ManifestError, match="no longer where it was"):
        pack_grounding(workspace, as_made("grounding_model", params, workspace), tmp_path / "again")
    drew = as_made("synthetic_dataset", params, workspace)
    assert not (tmp_path / "again").exists() and side_of(drew, workspace) == -1


def test_a_move_that_was_cut_off_is_finished(workspace, monkeypatch):
    shutil.rmtree(workspace.data / "champion")
    retrain(workspace, 26)

    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.set_registered_model_alias", cut)
        with pytest.raises(KeyboardInterrupt):
            promote(workspace)
    assert promote(workspace)["champion_segmenter"] == "models:/segmenter-ci/2"


def test_two_profiles_of_one_registry_leave_each_other_alone(workspace):
    shutil.copytree(workspace.data, workspace.root / "data" / "other")
    other = Workspace(workspace.root, "other")
    shutil.rmtree(other.data / "champion")
    assert promote(other)["champion_segmenter"] == "models:/segmenter-other/1"
    assert promote(workspace)["champion_segmenter"] == "models:/segmenter-ci/1"
    assert promote(other)["champion_segmenter"] == "models:/segmenter-other/1"


def test_a_champion_of_the_shared_names_is_taken_over(workspace):
    """Registries from before names went by profile."""
    registry = registry_of(workspace)
    registry.client.copy_model_version("models:/segmenter-ci/1", "segmenter")
    registry.client.delete_registered_model("segmenter-ci")
    registry.sync_champions()
    assert registry.champions()["segmenter"] == "models:/segmenter-ci/1"
    version = registry.client.get_model_version("segmenter-ci", "1")
    assert version.tags["manifest_sha"] == read_manifest(workspace.folder("segmenter")).digest


TWO = """
images = np.full((1, 64, 64, 3), 128, np.uint8)
models = [mlflow.pyfunc.load_model(f"models:/segmenter-ci/{i}") for i in (1, 2)]
print([int(np.unique(model.predict(images))[0]) == 77 for model in models])
"""


def test_models_load_in_a_clean_process_and_two_versions_run_their_own_code(
    workspace, tmp_path, monkeypatch
):
    """Both kinds in one process, which takes ten seconds to import what they need."""
    from ml.images.png import encode_png
    from ml.segmenters import load_segmenter
    from ml.segmenters.prediction import predict

    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    expected = predict(load_segmenter(workspace.folder("segmenter") / "model"), images)
    changed = tmp_path / "changed" / "ml"
    shutil.copytree(packaging.CODE, changed, ignore=shutil.ignore_patterns("__pycache__"))
    file = changed / "segmenters" / "prediction.py"
    file.write_text(
        file.read_text()
        + """

def predict(model, images):
    import numpy

    return numpy.full(images.shape[:3], 77, numpy.uint8)
"""
    )
    retrain(workspace, 27)
    monkeypatch.setattr(packaging, "CODE", changed)
    registry_of(workspace).log_challengers()
    labels, picture = tmp_path / "labels.npy", tmp_path / "picture.png"
    picture.write_bytes(encode_png(np.full((64, 64, 3), 90, np.uint8)))
    uri = f"sqlite:///{workspace.root}/mlflow.db"
    out = clean_process(PREDICT + TWO + GROUND, [str(labels), str(picture)], uri, tmp_path)
    np.testing.assert_array_equal(np.load(labels), expected)
    assert out.strip().splitlines()[-3:] == ["[False, True]", "[1, 2]", "[0, 0]"]


@pytest.fixture
def mlflow_of(promoted):
    """MLflow at the registry; the models' own code is unloaded after the test."""
    yield registry_of(promoted).mlflow
    for name in {n.partition(".")[0] for n in sys.modules if re.match(r"ml_[0-9a-f]{12}", n)}:
        packaging._forget(name)


def test_a_request_with_pixels_in_0_to_1_is_refused(mlflow_of):
    """MLflow's server casts them to uint8: the answer was that of a black picture."""
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    model = mlflow_of.pyfunc.load_model("models:/segmenter-ci@champion")

    def asked(pictures: np.ndarray) -> np.ndarray:
        """As the server does with a request's `inputs`."""
        schema = model.metadata.get_input_schema()
        return model.predict(infer_and_parse_data({"inputs": pictures.tolist()}, schema))

    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(asked(images), model.predict(images))
    with pytest.raises(mlflow_of.MlflowException, match=r"multiply pixels in 0\.\.1 by 255"):
        asked(images / 255)
    with pytest.raises(mlflow_of.MlflowException, match="got none above 1"):
        model.predict(images // 255)
    black = np.stack([np.zeros_like(images[0]), images[1]])
    np.testing.assert_array_equal(model.predict(black)[1], model.predict(images)[1])


def test_pictures_of_two_sizes_are_named(mlflow_of):
    import pandas as pd

    from ml.images.png import encode_png

    model = mlflow_of.pyfunc.load_model("models:/grounding-ci@champion")
    pngs = [encode_png(np.zeros((side, 64, 3), np.uint8)) for side in (64, 32)]
    with pytest.raises(ValueError, match=r"pictures of 64x64, .*\(32, 64\), \(64, 64\)"):
        model.predict(pd.DataFrame({"image": pngs, "words": [["dog"], ["dog"]]}))


def test_rooms_that_no_model_can_import_stay_behind(tmp_path):
    """As pyproject.toml has the layers, whose contract lint holds."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c["layers"] for c in settings["contracts"] if c["type"] == "layers")
    above = " | ".join(layers[: layers.index("ml.grounding")]).split(" | ")
    assert {f"ml.{name}" for name in packaging.LEFT_OUT} | {"orchestration"} == set(above)
    code, _ = packaging.copy_code(packaging.HERE / "pyfunc_segmenter.py", tmp_path)
    assert not {path.name for path in code.iterdir()} & set(packaging.LEFT_OUT)


def test_code_that_would_import_another_s_is_refused(tmp_path, monkeypatch):
    code, wrapper = packaging.copy_code(packaging.HERE / "pyfunc_segmenter.py", tmp_path / "a")
    assert code.name != "ml" and f"from {code.name}.segmenters" in wrapper.read_text()
    bad = tmp_path / "ml"
    bad.mkdir()
    (bad / "module.py").write_text("import os; import ml.x\n")
    monkeypatch.setattr(packaging, "CODE", bad)
    with pytest.raises(ValueError, match="module.py, line 1"):
        packaging.copy_code(packaging.HERE / "pyfunc_segmenter.py", tmp_path / "b")


def test_metrics_of_classes_as_people_name_them(workspace):
    facts = handmade.segmenter_facts()
    names = ["men's shoe", "C++", r"$\foo$", "x" * 400, *map(str, range(250))]
    facts["synthetic"]["per_class"] = dict.fromkeys(names, 60.0)
    handmade.write_stage("benchmark_scores", workspace, facts)
    registry = registry_of(workspace)
    registry.log_challengers()
    run_id = registry.client.get_model_version("segmenter-ci", "1").run_id
    metrics = registry.client.get_run(run_id).data.metrics
    assert metrics["synthetic/per_class/men_x27_s shoe"] == 60.0
    assert len([name for name in metrics if "synthetic/per_class" in name]) >= 254
    names_file = registry.mlflow.artifacts.load_dict(f"runs:/{run_id}/names.json")
    assert ["synthetic", "per_class", "x" * 400] in names_file.values()


def test_a_registry_that_cannot_be_opened_is_one_line(workspace):
    (workspace.root / "broken.db").write_text("no database" * 1000)
    for uri in (
        f"sqlite:///{workspace.root}/broken.db",
        f"sqlite:///{workspace.root}/broken.db/below/x.db",
    ):
        with pytest.raises(ValueError, match="can't be opened") as caught:
            Registry(uri, "artifacts", handmade.params_of(workspace), workspace)
        assert "\n" not in str(caught.value)
