"""One way out of every command: documented codes, one line, a traceback for a defect of ours alone.

Where a process matters, to signals, outputs and disks that are really full, the commands run in
their own.
"""

import ast
import concurrent.futures
import errno
import importlib
import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml

from ml import errors
from ml.__main__ import main
from ml.errors import exit_code, exit_path, one_line
from ml.settings.profile import ROOT, load_params

ENV = {"OMP_NUM_THREADS": "1"}


def start(*arguments: str, cwd: Path = ROOT, env: dict | None = None, **more) -> subprocess.Popen:
    """A command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        text=True,
        start_new_session=True,
        env=os.environ | ENV | (env or {}),
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more,
    )


def run(*arguments: str, **more) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    process = start(*arguments, **more)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def said(err: str) -> str:
    """The one line of an error, after progress bars."""
    assert "Traceback" not in err, err
    lines = [line.rpartition("\r")[2] for line in err.splitlines()]
    assert len([line for line in lines if line.startswith("error: ")]) <= 1, err
    return lines[-1]


@pytest.fixture(autouse=True)
def ctrl_c_reaches_commands():
    """A shell starts what it puts in the background with Ctrl-C ignored, and so would the suite's
    commands be, which leave an ignored signal alone."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# The commands


def test_a_stage_that_is_done_is_0_and_one_without_inputs_3(tmp_path, capsys):
    assert main(["prompts", "--profile", "ci", "--root", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["triplets", "--profile", "ci", "--root", str(tmp_path)]) == 3
    err = capsys.readouterr().err
    assert said(err).startswith("error: no ") and "run `python -m ml images`" in err


@pytest.mark.parametrize(
    "arguments, match",
    [
        (
            ["prompts", "--profile", "sd16"],
            "error: unknown profile 'sd16': expected 'micro', one of",
        ),
        (["prompts", "--profile", ""], "error: unknown profile ''"),
        (["paint"], "invalid choice: 'paint'"),
        (["prompts", "--root", ""], "--root: expected a folder, got nothing"),
        (["prompts", "--root", str(ROOT / "params.yaml")], "params.yaml is none"),
        (["prompts", "--root", str(ROOT / "params.yaml" / "x")], "params.yaml is none"),
        (["--profile", "micro", "plan"], "error: plan is a command with options of its own"),
        (["--root", ".", "export"], "got '--root' there; write python -m ml export [options]"),
        (["plan", "--images", "0"], "--images: expected a whole number from 1 to"),
        (["plan", "--images", "nan"], "--images: expected a whole number from 1 to"),
        (["init", "--classes", ""], "error: --classes: expected words separated by commas"),
        (["init", "--classes", "pallet", "--texts", ""], "--texts: expected a value, got nothing"),
        (["init", "--classes", "pallet", "--name", " "], "--name: expected a value, got nothing"),
        (["init", "--labels="], "--labels: expected a value, got nothing (an unset variable?)"),
        (["teach", "--labels", "x", "--model", ""], "--model: expected a value, got nothing"),
        (["teach", "--images", "", "--masks", "x"], "--images: expected a value, got nothing"),
        (["export", "--format", "coco", "--pictures", ""], "--pictures: expected a value, got"),
        (["audit", ""], "ticks: expected a value, got nothing"),
        (["prove", "--write", ""], "--write: expected a value, got nothing"),
        (["score-grounding", ""], "folder: expected a value, got nothing"),
        (["init"], "error: expected --classes, --labels, or both: nothing names a word"),
        (["audit", "nowhere.json"], "error: no file nowhere.json"),
        (["export"], "the following arguments are required: --format"),
        (["export", "--format", "csv"], "invalid choice: 'csv'"),
        (["export", "--format", "coco", "--split", "train=2"], "error: split 'train=2'"),
    ],
)
def test_what_people_type_is_2(arguments, match, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert match in said(err)


@pytest.mark.parametrize(
    "module, arguments, code, match",
    [
        ("orchestration.summary", ["--profile", "sd16"], 2, "unknown profile 'sd16'"),
        ("orchestration.run_config", ["--profile", "", "--write", "x"], 2, "unknown profile ''"),
        ("ml.studies", ["--row", "ours"], 2, "--row needs exactly one --study"),
        ("ml.foundation.curves", ["--work", "/nowhere", "--docs", "/nowhere"], 2, "no curves in"),
        ("ml.foundation.gallery", ["--out", "/proc/self/x.png"], None, "/proc/self"),
    ],
)
def test_every_kind_of_command_has_the_same_way_out(
    module, arguments, code, match, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit) as left, warnings.catch_warnings(action="ignore"):
        runpy.run_module(module, run_name="__main__")  # imported before, as it warns
    done = left.value.code
    assert done == code or code is None and done in (2, 4)
    assert match in said(capsys.readouterr().err)


def commands() -> list[Path]:
    """Every module that is a command."""
    files = [p for name in errors.PACKAGES for p in (ROOT / name).rglob("*.py")]
    return [p for p in files if "__main__" in p.read_text() and p.name != "errors.py"]


@pytest.mark.parametrize("file", commands(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_command_goes_round_it(file):
    """Either main is decorated with exit_path, or it is called through it."""
    tree = ast.parse(file.read_text())
    decorated = any(
        isinstance(node, ast.FunctionDef)
        and node.name == "main"
        and [ast.unparse(d) for d in node.decorator_list] == ["exit_path"]
        for node in tree.body
    )
    last = ast.unparse(tree.body[-1].body[0])
    assert last == ("sys.exit(main())" if decorated else "sys.exit(exit_path(main)())")


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "ml", "prompts"],
        ["-m", "ml", "plan"],
        ["-m", "ml", "init"],
        ["-m", "ml.studies"],
        ["-m", "orchestration.summary"],
        ["-m", "orchestration.mlflow.champion"],
    ],
)
def test_help_has_the_codes(arguments):
    code, out, _ = run(*arguments, "--help")
    assert code == 0
    assert " ".join(errors.EXIT_CODES.split()) in " ".join(out.split())


# What runs out


def test_a_full_disk_is_4_and_the_same_command_goes_on(small_disk):
    arguments = "-m", "ml", "prompts", "--root", str(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 900_000)
    code, _, err = run(*arguments)
    assert code == 4 and "No space left on device" in said(err) and "--root" in said(err)
    filler.unlink()
    assert run(*arguments)[0] == 0


def test_a_limit_on_file_sizes_is_4(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    code, _, err = run(
        "-m", "ml", "prompts", "--profile", "ci", "--root", str(tmp_path), preexec_fn=limit
    )
    assert code == 4 and "File too large" in said(err) and "ulimit -f" in said(err)


def test_a_disk_that_cannot_be_written_is_4(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, _, err = run("-m", "ml", "prompts", "--root", str(small_disk))
    assert code == 4 and "Read-only file system" in said(err) and "another --root" in said(err)


def test_a_full_output_is_4(tmp_path):
    with open("/dev/full", "w") as full:
        code, _, err = run(
            "-m", "ml", "prompts", "--profile", "ci", "--root", str(tmp_path), stdout=full
        )
    assert code == 4 and "No space left" in said(err)


def test_a_reader_that_goes_away_is_141_and_quiet(tmp_path):
    process = start("-m", "ml", "prompts", "--profile", "ci", "--root", str(tmp_path))
    process.stdout.close()  # as `| head` does
    err = process.stderr.read()
    assert process.wait(60) == 141, err
    assert "Traceback" not in err and "Broken" not in err and "Exception" not in err


def test_a_symlink_in_place_of_a_stage_is_told_and_what_it_points_to_stays(tmp_path, capsys):
    arguments = ["prompts", "--profile", "ci", "--root", str(tmp_path), "--force"]
    stage, away = tmp_path / "data" / "ci" / "prompts", tmp_path / "away"
    away.mkdir()
    (away / "holiday.jpg").write_bytes(b"mine")
    stage.parent.mkdir(parents=True)
    stage.symlink_to(away)
    code = main(arguments)
    assert (away / "holiday.jpg").read_bytes() == b"mine"
    assert code == 0 or said(capsys.readouterr().err).startswith("error: ")


# Signals


@pytest.fixture
def long_prompts(tmp_path) -> tuple[list[str], Path]:
    """A command that makes shards for many seconds, and the profile's folder."""
    (tmp_path / "long.yaml").write_text(
        yaml.safe_dump({"prompts": {"train_one": 60_000}, "shards": {"size": 500}})
    )
    return (
        ["-m", "ml", "prompts", "--profile", str(tmp_path / "long.yaml"), "--root", str(tmp_path)],
        tmp_path / "data" / "long",
    )


@pytest.mark.parametrize(
    "number, code, word", [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_stopped_stage_says_so_and_leaves_no_half_file(long_prompts, number, code, word):
    arguments, folder = long_prompts
    process = start(*arguments)
    deadline = time.monotonic() + 60
    while not list(folder.rglob("shard-*.parquet")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert word in said(err) and "the same command goes on" in said(err)
    assert list(folder.rglob("shard-*.parquet")) and not list(folder.rglob(".shard*.tmp"))


def test_sigterm_stays_one_where_a_library_raises_its_own_keyboard_interrupt(capsys):
    """As Ray does for every signal that meets it while it waits."""

    @exit_path
    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None

    assert command() == 143
    assert capsys.readouterr().err.startswith("terminated: ")


def test_ctrl_c_while_it_imports_is_quiet():
    process = start("-X", "importtime", "-m", "ml", "prompts", "--profile", "sd16")
    for line in process.stderr:
        if "ml.compute.processes" in line:  # the first that main itself imports
            os.killpg(process.pid, signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(60) in (130, 2) and "Traceback" not in rest, rest


@pytest.mark.slow  # torch in three processes
@pytest.mark.parametrize("working", [False, True])
def test_ctrl_c_with_worker_processes_is_one_line(tmp_path, working):
    """The whole group gets the signal, as from a terminal: workers that are still importing, or
    that have a minute to go."""
    code = (
        "import sys, pathlib, pyarrow as pa\n"
        "from ml.errors import exit_path\nfrom ml.store.making import write_shards\n"
        "from ml.studies.parallel import processes\nfrom tests.builders import makers\n"
        "schema = pa.schema([('key', pa.string()), ('x', pa.float64())])\n"
        "sys.exit(exit_path(write_shards)(pathlib.Path(sys.argv[1]), 'r', [[1], [2]],\n"
        "                                 makers.sleepy, schema, processes(2)))\n"
    )
    process = start("-c", code, str(tmp_path / "out"))
    if working:
        assert (
            "begun" in process.stdout.readline()
        )  # Ray says whose line it is, and tells two as one
    else:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while len(children.read_text().split()) < 3:  # the resource tracker is one
            time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Ctrl-C" in said(err)


def test_ctrl_c_in_a_process_that_was_just_forked_ends_it_without_a_word():
    """The group's signal may meet it before it has become another program, as Ray's do."""
    code = (
        "import os, signal, sys\nfrom ml.errors import exit_path\n"
        "def command():\n"
        "    if not (child := os.fork()):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        print('alive', flush=True)\n"
        "        os._exit(0)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "sys.exit(exit_path(command)())\n"
    )
    assert run("-c", code) == (0, "-2\n", "")


# Kinds


@pytest.mark.parametrize("name", [kind for kind, _ in errors.TABLE if isinstance(kind, str)])
def test_kinds_named_by_text_exist(name):
    if name.startswith("torch.") and importlib.util.find_spec("torch") is None:
        pytest.skip("no torch")
    module, _, kind = name.rpartition(".")
    cls = getattr(importlib.import_module(module), kind)
    assert f"{cls.__module__}.{cls.__qualname__}" == name


def fall_short(error: Exception) -> int:
    def command():
        raise error

    return exit_path(command)()


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.WorkspaceBusy("x"), 5),
        (errors.ManifestError("x"), 3),
        (errors.QualityError("x"), 3),
        (errors.NotFinite("x"), 2),
        (errors.OutOfMemory("x"), 4),
        (MemoryError(), 4),
        (OSError(errno.ENOSPC, "No space left on device", "f"), 4),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "f"), 4),
        (PermissionError(errno.EACCES, "Permission denied", "f"), 4),
        (FileNotFoundError(errno.ENOENT, "No such file", "f"), 2),
        (OSError("Can't load the model 'x'"), 2),
        (ConnectionError("offline"), 4),
        (ModuleNotFoundError("No module named 'pandas'", name="pandas"), 4),
        (RuntimeError("PytorchStreamWriter failed writing file data/2: file write failed"), 4),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 4),
    ],
)
def test_the_code_of_each_kind(error, code, capsys):
    assert fall_short(error) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        RuntimeError("x"),
        AttributeError("x"),
        AssertionError(),
        ZeroDivisionError(),
        ModuleNotFoundError("No module named 'ml.gone'", name="ml.gone"),
    ],
)
def test_a_defect_of_ours_goes_on_up(error):
    with pytest.raises(type(error)):
        fall_short(error)


def test_a_value_error_is_an_input_only_where_somebody_meant_it():
    """numpy's, raised amid our work, is a defect; ours and those of libraries that read are not."""
    with pytest.raises(ValueError, match="broadcast"):
        exit_path(lambda: np.zeros(2) + np.zeros(3))()
    with pytest.raises(ValueError, match="invalid literal"):
        exit_path(lambda: int("x"))()
    assert exit_path(lambda: load_params("sd16"))() == 2
    from huggingface_hub.utils import validate_repo_id

    assert exit_path(lambda: validate_repo_id("../../x"))() == 2


def test_an_error_of_a_worker_process_keeps_its_code():
    """Its traceback stays behind; a killed worker is what ran out of something."""
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        assert exit_path(lambda: pool.submit(load_params, "sd16").result())() == 2
    with (
        concurrent.futures.ProcessPoolExecutor(1, context) as pool,
        pytest.raises(concurrent.futures.process.BrokenProcessPool) as caught,
    ):
        pool.submit(os._exit, 1).result()
    assert exit_code(caught.value) == 4
    wrapped = RuntimeError("a process was killed")
    wrapped.__cause__ = caught.value
    assert exit_code(wrapped) == 4


def test_out_of_memory_of_torch_is_4():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert exit_code(caught.value) == 4


def test_detectors_that_cannot_be_loaded(tmp_path, monkeypatch, capsys):
    """A wrong path, detectron2 that is not installed, COCO weights without a network."""
    from ml.detectors import load_detector

    def load(backend: str, model: str) -> int:
        return exit_path(lambda: load_detector(backend, model, device="cpu"))()

    assert load("torchvision", str(tmp_path / "nowhere")) == 2
    monkeypatch.setitem(sys.modules, "detectron2", None)
    assert load("detectron2", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml") == 4
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load("torchvision", "coco") == 4
    err = capsys.readouterr().err
    said = [line for line in err.splitlines() if line.startswith("error: ")]  # beside torchao's
    assert len(said) == 3 and "Traceback" not in err


def test_one_line_stays_one_line():
    assert one_line(errors.ManifestError("a\n  b\n")) == "a b"
    assert len(one_line(errors.ManifestError("x" * 10_000))) < 2100
    assert one_line(OSError(errno.ENOSPC, "No space", "/d/f")).startswith("No space: /d/f; free")
    assert one_line(KeyError("x")) == "KeyError: 'x'"
    noted = errors.ManifestError("a")
    noted.add_note("in study b")
    assert one_line(noted) == "a (in study b)"


def test_a_traceback_can_be_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("TRACEBACK", "1")
    assert main(["prompts", "--profile", "sd16"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err and err.splitlines()[-1].startswith("error: unknown profile")


# make


@pytest.fixture
def make(tmp_path):
    """`make` with this Python, and a `dagster` that says how it was called."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tools / "dagster").write_text(
        '#!/bin/sh\necho "offline=$HF_HUB_OFFLINE $*"\necho ---\ncat "$RUN_CONFIG"\n'
    )
    (tools / "pytest").write_text('#!/bin/sh\necho "offline=$HF_HUB_OFFLINE"\n')
    for checker in ("ruff", "lint-imports", "mypy"):
        (tools / checker).write_text("#!/bin/sh\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    (tmp_path / "stamp").touch()
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "PROFILE")}

    def call(*arguments: str, **more: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [
                "make",
                *arguments,
                f"BIN={tools}",
                f"STAMP={tmp_path / 'stamp'}",
                f"DAGSTER_HOME={tmp_path / 'home'}",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=env | more,
        )
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.mark.parametrize("profile, offline", [("ci", 1), ("sd15", 0)])
def test_make_is_offline_where_no_model_has_to_come(make, profile, offline):
    """A first download of a full-size profile can happen; the micro size asks nobody."""
    _, out, _ = make("run", f"PROFILE={profile}")
    assert f"offline={offline} job execute" in out
    assert f"profile: {profile}" in out


def test_make_leaves_the_choice_to_the_environment(make):
    assert "offline=1 job" in make("run", "PROFILE=sd15", HF_HUB_OFFLINE="1")[1]
    assert "offline=0 job" in make("run", HF_HUB_OFFLINE="0")[1]
    assert "offline=1" in make("test")[1]
    assert "offline=0" in make("test", HF_HUB_OFFLINE="0")[1]


def test_make_takes_a_profile_of_any_path(make, tmp_path):
    file = tmp_path / "my words (it's new)" / "yard.yaml"
    file.parent.mkdir()
    file.write_text("base: sd15\n")
    _, out, err = make("run", f"PROFILE={file}")
    assert "offline=0 job execute" in out, err
    config = yaml.safe_load(out.partition("---\n")[2])
    assert config["resources"]["project"]["config"] == {"profile": str(file)}


@pytest.mark.parametrize("profile", ["", "nowhere.yaml"])
def test_make_refuses_a_profile_before_dagster_starts(make, profile):
    code, out, err = make("run", f"PROFILE={profile}")
    assert code == 2 and f"error: unknown profile '{profile}'" in err and "job execute" not in out
    assert "Traceback" not in err


def test_a_picture_that_the_judge_cannot_name_is_2(tmp_path, monkeypatch, capsys):
    """Missing, no picture, and of another size; its own folder damaged."""
    from PIL import Image

    from ml.foundation import judge

    monkeypatch.chdir(ROOT)
    wrong = {name: tmp_path / f"{name}.png" for name in ("missing", "text", "large")}
    wrong["text"].write_text("no picture")
    Image.new("RGB", (65, 64)).save(wrong["large"])
    for path in wrong.values():
        assert exit_path(judge.main)(["name", str(path)]) == 2
        assert str(path) in said(capsys.readouterr().err)
    (tmp_path / "config.json").write_text("{")
    assert exit_path(judge.main)(["name", str(path), "--folder", str(tmp_path)]) == 2
    assert "config.json" in said(capsys.readouterr().err)
