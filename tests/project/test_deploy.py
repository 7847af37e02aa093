"""The image's file and the compose file, as far as they can be judged without a Docker engine."""

import re
import runpy
import subprocess
import sys
import tomllib

import pytest
import yaml

from ml.settings.profile import ROOT

DEPLOY = ROOT / "deploy"
LEFT_OUT = ("app", "docs", "dev")  # for a person at a screen
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
STAGES = re.split(r"^FROM ", (DEPLOY / "Dockerfile").read_text(), flags=re.M)


def test_the_image_installs_what_is_pinned():
    asked = subprocess.run(
        [sys.executable, str(DEPLOY / "requirements.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(asked) == {
        *project["dependencies"],
        *(
            line
            for name, lines in extras.items()
            if name not in ("app", "docs", "dev")
            for line in lines
        ),
    }
    assert "-r requirements.txt -c constraints.txt" in STAGES[1]


@pytest.mark.parametrize(
    ("variant", "cuda", "refusal"),
    [
        ("cpu", None, ""),
        ("cuda", "13.0", ""),
        ("cpu", "13.0", "VARIANT is cpu, but this torch is a cuda build.*TORCH_INDEX"),
        ("cuda", None, "VARIANT is cuda, but this torch is a cpu build"),
        ("gpu", None, "expected cpu or cuda, got 'gpu'"),
    ],
)
def test_an_image_is_of_the_variant_that_was_asked_for(variant, cuda, refusal):
    check_variant = runpy.run_path(str(DEPLOY / "requirements.py"))["check_variant"]
    if not refusal:
        return check_variant(variant, cuda)
    with pytest.raises(SystemExit, match=refusal):
        check_variant(variant, cuda)


def test_the_last_stage_installs_nothing_and_is_nobodys_root():
    last = STAGES[-1]
    users = re.findall(r"^USER (\S+)$", last, flags=re.M)
    assert users == ["10001:10001"] and last.rindex("USER") > last.rindex("RUN")
    assert not re.search(r"\b(apt-get|apk|pip|gcc|build-essential)\b", last)
    assert "EXPOSE" not in last and "0.0.0.0" not in last


def test_the_image_gets_the_checkouts_files_and_no_data():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and line[0] != "#"]
    assert rules[0] == "*", "what is not named stays out"
    named = [rule[1:] for rule in rules if rule[0] == "!"]
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert not {"data", ".git", ".venv", "tests", "."} & set(named)
    copied = re.findall(r"^COPY (?!--from)(.*) \./?$", "\n".join(STAGES), flags=re.M)
    wanted = {file for line in copied for file in line.split() if file != "."}
    assert wanted <= set(named)


def test_only_this_machine_reaches_the_services():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 2 and all(port.startswith("127.0.0.1:") for port in ports)
    assert all("network_mode" not in service for service in COMPOSE["services"].values())


def test_no_password_is_written_down():
    """Each comes from the environment, and an empty one is refused."""
    found = {
        f"{name}: {key}": value
        for name, service in COMPOSE["services"].items()
        for key, value in service["environment"].items()
        if "PASSWORD" in key
    }
    assert len(found) == 5
    assert all(value.startswith("${POSTGRES_PASSWORD:?") for value in found.values()), found
    assert not re.search(r"//[^/\s]*:[^/\s]*@", (DEPLOY / "compose.yaml").read_text())


def test_named_volumes_belong_to_the_one_who_writes_into_them():
    """Docker gives a new volume the owner of the image's folder, and without such a folder root."""
    owned = set(re.search(r"install -d -o words -g words ((?:[^&]|\\\n)+)", STAGES[-1])[1].split())
    mounts = [
        mount.split(":")
        for name, service in COMPOSE["services"].items()
        if name != "postgres"  # whose image looks after its own
        for mount in service.get("volumes", ())
    ]
    targets = {place for source, place, *_ in mounts if source in COMPOSE["volumes"]}
    assert len(targets) == 4 and targets <= owned, targets - owned


def test_compose_starts_the_image_that_is_built():
    (default,) = re.findall(r"\$\{IMAGE:-(.+)\}", COMPOSE["x-ours"]["image"])
    for page in (DEPLOY / "Dockerfile", DEPLOY / "compose.yaml", ROOT / "docs" / "kubernetes.md"):
        built = re.findall(r"-t (words-to-masks\S*) \.", page.read_text())
        assert default in built, page


def test_every_service_is_waited_for_until_it_is_well():
    services = COMPOSE["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"} and "healthcheck" in services[other], (
                name
            )


def test_the_console_is_as_quiet_as_in_a_checkout():
    files = (ROOT / ".dagster" / "dagster.yaml", DEPLOY / "dagster.yaml")
    levels = [yaml.safe_load(file.read_text())["python_logs"] for file in files]
    values = yaml.safe_load((DEPLOY / "values.yaml").read_text())
    assert levels == [{"python_log_level": "WARNING"}] * 2
    assert values["pythonLogs"] == {"pythonLogLevel": "WARNING"}


def test_the_compose_file_and_the_instance_agree():
    """What dagster.yaml reads from the environment is there, in all that open the history."""
    text = (DEPLOY / "dagster.yaml").read_text()
    read = set(re.findall(r"env: (\w+)", text))
    assert len(read) == 5
    for name in ("code", "webserver", "daemon"):
        service = COMPOSE["services"][name]
        assert read <= set(service["environment"])
        assert any(volume.startswith("./dagster.yaml:") for volume in service["volumes"])
