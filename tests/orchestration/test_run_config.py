"""What `make run` asks first: is the profile sound, and are its models on this machine?"""

import dagster as dg
import yaml

from orchestration.definitions import defs
from orchestration.resources import Project
from orchestration.run_config import main


def offline(tmp_path, capsys, **detector) -> str:
    profile = tmp_path / "yard.yaml"
    profile.write_text(yaml.safe_dump({"detector": detector}))
    arguments = ["--profile", str(profile), "--root", str(tmp_path), "--write"]
    assert main([*arguments, str(tmp_path / "run.yaml")]) == 0
    return capsys.readouterr().out.strip()


def test_a_folder_called_as_a_backends_own_model_is_not_that_model(tmp_path, capsys):
    (tmp_path / "coco").mkdir()
    assert offline(tmp_path, capsys, backend="torchvision", model="coco", weights=None) == "0"
    (tmp_path / "mine").mkdir()
    assert offline(tmp_path, capsys, backend="torchvision", model="mine", weights=None) == "1"


def test_where_the_data_lies_and_who_keeps_the_models_reach_the_run(tmp_path):
    def project(*where: str) -> dict[str, str]:
        assert main([*where, "--profile", "micro", "--write", str(tmp_path / "run.yaml")]) == 0
        written = yaml.safe_load((tmp_path / "run.yaml").read_text())
        return written["resources"]["project"]["config"]

    assert project() == {"profile": "micro"}
    own = f"sqlite:///{tmp_path}/models.db"
    assert project("--root", str(tmp_path), "--tracking-uri", own) == {
        "profile": "micro",
        "root": str(tmp_path),
        "tracking_uri": own,
    }
    bucket = project("--root", "memory://bucket/x", "--tracking-uri", own)
    assert bucket["root"] == "memory://bucket/x"


def test_a_bucket_without_an_address_of_mlflow_is_refused_before_dagster(tmp_path, capsys):
    arguments = ["--root", "memory://bucket/x", "--write", str(tmp_path / "run.yaml")]
    assert main(arguments) == 2
    assert "tracking_uri: missing" in capsys.readouterr().err
    assert not (tmp_path / "run.yaml").exists()


def test_the_surroundings_count_beside_a_run_config_of_other_fields(tmp_path, monkeypatch):
    """Dagster drops all of a resource's own defaults where the run config has one field of it."""
    for name, value in (("ROOT", str(tmp_path)), ("TRACKING_URI", f"sqlite:///{tmp_path}/m.db")):
        monkeypatch.setenv(f"WORDS_TO_MASKS_{name}", value)
    seen: list[Project] = []

    @dg.op
    def look(project: Project) -> None:
        seen.append(project)

    @dg.job(resource_defs={"project": defs.resources["project"]})
    def once() -> None:
        look()

    for config in ({}, {"profile": "ci"}):
        once.execute_in_process({"resources": {"project": {"config": config}}})
        assert seen[-1].home == tmp_path
        assert seen[-1].registry[0] == f"sqlite:///{tmp_path}/m.db"
