"""What `make run` asks first: is the profile sound, and are its models on this machine?"""

import yaml

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
