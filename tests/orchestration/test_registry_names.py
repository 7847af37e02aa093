"""What people call their classes, and what a store, a chart and a page make of it."""

import random
import re
import shutil

import pytest

from ml.settings.profile import ROOT
from ml.store.manifest import Manifest
from orchestration.mlflow import serve
from orchestration.mlflow.model_card import MOST_DESCRIPTION, cell, describe_version, model_card
from orchestration.mlflow.names import MAX_LENGTH, aliases, stored, typed
from orchestration.mlflow.registry import registered_name
from orchestration.mlflow.tracking import PASSWORD, USER, mask, resolve, with_login
from tests.builders.dagster_cli import dagster, run_config

CLASSES = [
    "men's shoe",
    "hard hat (yellow)",
    "C++",
    "cash $ and $ coin",
    r"$\foo$",
    "a/b",
    "..",
    ".",
    " dog ",
    "é́",
    "字",
    "😀",
    "½",
    "a_x27_b",
    "_x_",
    "x" * 400,
    "<script>",
    "a|b",
    "*b*",
    "\x01",
]


def test_mlflow_itself_takes_every_stored_name():
    from mlflow.utils import validation

    for name in CLASSES:
        key = stored("synthetic", "per_class", name)
        validation._validate_metric_name(key)
        validation._validate_param_name(key)
        validation._validate_tag(key, "1")
        validation._validate_length_limit("Metric name", validation.MAX_ENTITY_KEY_LENGTH, key)
        validation._validate_model_name(registered_name("segmenter", name))
        assert len(key) <= MAX_LENGTH and "'" not in key


def test_stored_names_are_reversible_and_never_shared():
    assert stored("synthetic", "per_class", "men's shoe") == "synthetic/per_class/men_x27_s shoe"
    assert stored("synthetic", "harmonic") == "synthetic/harmonic", "plain names are as before"
    rng, known = random.Random(0), {}
    for _ in range(20_000):
        path = tuple(
            "".join(rng.choice("_x2F5/. A'") for _ in range(rng.randrange(7))) for _ in range(2)
        )
        name = stored(*path)
        assert typed(name) == path
        assert known.setdefault(name, path) == path


def test_a_name_that_is_too_long_is_kept_beside():
    long, other = "x" * 400, "x" * 399 + "y"
    assert stored("a", long) != stored("a", other)
    with pytest.raises(ValueError, match=r"names\.json"):
        typed(stored("a", long))
    assert aliases([("a", long), ("a", "dog"), ("a", "C++")]) == {
        stored("a", long): ["a", long],
        "a/C_x2B__x2B_": ["a", "C++"],
    }


def card_of(classes: list[str], per_class: bool = True) -> str:
    made = Manifest("segmenter", 1, {"note": "a|b <i>"}, {"x": "1"}, {}, {})
    scores = Manifest(
        "benchmark_scores",
        1,
        {},
        {},
        {},
        {
            "synthetic": {"harmonic": 58.0, "per_class": dict.fromkeys(classes, 60.0)},
            "benchmark": "my <b>photos</b>",
        },
    )
    return model_card("segmenter", made, scores, per_class)


def test_the_card_shows_classes_as_typed_and_nothing_else():
    text = card_of(CLASSES)
    row = next(line for line in text.splitlines() if "men's shoe" in line)
    assert row == "| synthetic | men's shoe | 60.00 |"
    assert r"cash \$ and \$ coin" in text and r"a\|b" in text
    assert "<script>" not in text and "<b>" not in text and "<i>" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {3, 4}
    assert cell("two\nlines") == "two lines"


def test_a_description_fits_its_column():
    made = Manifest("segmenter", 1, {f"setting {i}": "x" * 90 for i in range(100)}, {}, {}, {})
    scores = Manifest("benchmark_scores", 1, {}, {}, {}, {"synthetic": {"harmonic": 58.0}})
    text = describe_version("segmenter", made, scores)
    assert len(text) == MOST_DESCRIPTION and "model_card.md" in text
    assert "men's shoe" not in card_of(CLASSES, per_class=False)


def test_profiles_have_models_of_their_own():
    assert registered_name("segmenter", "micro") == "segmenter"
    assert registered_name("segmenter", "yard") == "segmenter-yard"


SECRET_ADDRESSES = [
    "http://me:hunter2@host",
    "https://hunter2@host",
    "http://me:hunter2/x@host",
    "http://me:hun ter2@host",
    "postgresql://host/db?password=hunter2",
    "postgresql+psycopg2://me:hunter2@host/db",
    "HTTP://me:hunter2@host",
    " http://me:hunter2@host",
    "http:me:hunter2@host",
    "http://h?token=hunter2",
    "https://me.blob.core.windows.net/x?sv=1&sig=hunter2",
]


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
def test_a_login_in_an_address_is_refused_without_repeating_it(address, tmp_path):
    for uri, artifacts in ((address, "s3://bucket/x"), ("http://host", address)):
        with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as caught:
            resolve(uri, artifacts, tmp_path)
        assert "hunter2" not in str(caught.value) and "ter2" not in str(caught.value)


def test_the_mask_leaves_the_rest():
    text = "at http://me:hunter2@host/x and s3://bucket/y?a=1&token=abc me@mail"
    assert mask(text) == "at http://***@host/x and s3://bucket/y?a=1&token=*** me@mail"
    assert mask("sqlite:////home/a@b/x.db") == "sqlite:////home/a@b/x.db"


def test_every_asset_refuses_it_before_anything_is_made(tmp_path):
    import dagster as dg

    from orchestration.assets import materialize
    from orchestration.resources import Project

    for bad in (
        {"tracking_uri": "http://me:hunter2@host"},
        {"tracking_uri": "mlruns"},
        {"tracking_uri": "http://host", "artifacts": "mlartifacts"},
        {"tracking_uri": "postgresql://host/db"},
    ):
        with pytest.raises(dg.Failure) as caught:
            materialize(Project(profile="ci", root=str(tmp_path), **bad), "prompts")
        assert isinstance(caught.value.__cause__, ValueError) and not caught.value.allow_retries
        assert "hunter2" not in caught.value.description and not list(tmp_path.iterdir())


def test_where_artifacts_go(tmp_path):
    assert resolve("", "", tmp_path) == (
        f"sqlite:///{tmp_path}/mlflow.db",
        (tmp_path / "mlartifacts").as_uri(),
    )
    assert resolve("sqlite:///x.db", "s3://b/x", tmp_path)[1] == "s3://b/x"
    assert resolve("http://host:5000", "", tmp_path) == ("http://host:5000", None)
    assert resolve("http://host", "s3://b/x", tmp_path)[1] == "s3://b/x"
    certificate = "postgresql://host/db?sslkey=/etc/me.key&sslmode=verify-full"
    assert resolve(certificate, "s3://b/x", tmp_path)[0] == certificate, "a file, no secret"
    assert resolve("http://host", "wasbs://box@me.blob.core.windows.net/x", tmp_path)[1]


def test_a_database_gets_its_login_from_the_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a/b@c")
    assert with_login("postgresql://host/db") == "postgresql+psycopg2://me:a%2Fb%40c@host/db"
    assert with_login("mysql+pymysql://host/db") == "mysql+pymysql://me:a%2Fb%40c@host/db"
    assert with_login("http://host") == "http://host", "MLflow reads it there by itself"
    assert with_login("sqlite:////x.db") == "sqlite:////x.db"


def test_a_password_in_a_run_config_is_kept_nowhere(tmp_path):
    """Through the command line: not on the console, nor in anything that Dagster keeps."""
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copyfile(ROOT / ".dagster" / "dagster.yaml", home / "dagster.yaml")
    config = run_config(
        tmp_path,
        profile="ci",
        root=str(tmp_path / "root"),
        tracking_uri="http://me:hunter2@127.0.0.1:9",
    )
    done = dagster(home, "job", "execute", "-j", "data", "-c", config)
    output = done.stdout + done.stderr
    assert done.returncode != 0 and "tracking_uri holds a login (http://***@127.0.0.1:9)" in output
    assert "hunter2" not in output
    assert not [p for p in home.rglob("*") if p.is_file() and b"hunter2" in p.read_bytes()]
    assert not (tmp_path / "root").exists(), "refused before anything is made"


def test_the_page_of_the_registry_is_that_of_the_run(tmp_path, capsys, monkeypatch):
    """`make mlflow ROOT=...` opened the checkout's own registry all the same."""
    monkeypatch.setenv(USER, "me")
    monkeypatch.setenv(PASSWORD, "hunter2")
    registry = resolve("", "", tmp_path)
    with pytest.raises(ValueError, match="there is no registry .*mlflow.db.*ROOT=folder"):
        serve.environment_of(*registry, 5000)
    (tmp_path / "mlflow.db").touch()
    served = serve.environment_of(*registry, 5001)
    assert served["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert served["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == (tmp_path / "mlartifacts").as_uri()
    assert (served["MLFLOW_HOST"], served["MLFLOW_PORT"]) == ("127.0.0.1", "5001")
    database = serve.environment_of(*resolve("postgresql://there/all", "s3://b", tmp_path), 5000)
    assert "hunter2" in database["MLFLOW_BACKEND_STORE_URI"]
    assert serve.main(["--tracking-uri", "http://server:5000"]) == 2
    assert "http://server:5000 is a server already" in capsys.readouterr().err
