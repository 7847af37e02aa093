"""How the app starts, or says in one line why it does not."""

import os
import socket
import subprocess
import sys

import pytest

from ml.app.serving import HOST, QUIET, free_port, quiet
from ml.settings.profile import ROOT


def test_a_taken_port_is_said_in_one_line_with_what_to_do(capsys):
    from ml.__main__ import main

    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["app", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"port {port} of {HOST} is taken" in error and "--port" in error
    assert error.count("\n") == 1
    assert free_port(port) == port  # and is free again afterwards
    assert free_port(0) > 0


def test_without_gradio_one_sentence_says_what_to_install(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'gradio' else real(name, *more)\n"
    )
    told = subprocess.run(
        [sys.executable, "-m", "ml", "app"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 4 and not told.stdout
    assert told.stderr.startswith("error: the app needs Gradio") and "'.[app]'" in told.stderr
    assert told.stderr.count("\n") == 1


def test_telemetry_is_off_and_the_visitors_files_go_with_the_app(monkeypatch):
    for name in (*QUIET, "GRADIO_TEMP_DIR", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "theirs")  # put back at the end of the test
    with quiet() as folder:
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
        assert os.environ["NO_PROXY"] == "theirs,127.0.0.1,localhost"
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        (folder / "upload.png").write_bytes(b"x")
    assert not folder.exists()


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_refused(port, capsys):
    from ml.__main__ import main

    assert main(["app", "--port", port]) == 2
    assert "whole number from 0 to 65,535" in capsys.readouterr().err
