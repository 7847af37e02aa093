"""The app's server: one address of this machine, no telemetry, nothing fetched from elsewhere."""

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Gradio is imported after `quiet` alone
    from ml.app.page import Page

HOST = "127.0.0.1"
PORT = 7860
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",  # models are on this machine since the run that made the profile's data
    "DO_NOT_TRACK": "1",
    "DISABLE_TELEMETRY": "1",
}
"""Read by Gradio and huggingface_hub when they are imported."""


def free_port(wanted: int) -> int:
    """The port, 0 for any that is free. Raises ValueError, saying what to do, for one in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise ValueError(
                f"port {wanted} of {HOST} is taken ({error.strerror}), maybe by an app that still "
                "runs: stop that one, or give another port (--port 7861; make app APP_PORT=7861)"
            ) from error
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def quiet() -> Iterator[Path]:
    """Before Gradio is imported: switches off what it would send, asks no proxy for this machine,
    and yields a folder for the files of this app's visitors, which goes with it."""
    os.environ.update(QUIET)
    for name in ("NO_PROXY", "no_proxy"):
        own = os.environ.get(name, "")
        os.environ[name] = f"{own},{HOST},localhost" if own else f"{HOST},localhost"
    folder = Path(tempfile.mkdtemp(prefix="words-to-masks-app-"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def serve(page: "Page", port: int) -> None:
    """Serves until the process is stopped."""
    from ml.app.page import MOST_UPLOAD

    page.blocks.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=MOST_UPLOAD,
        theme=page.theme,
        head=page.head,
    )
    print(f"the app: http://{HOST}:{port} (Ctrl-C stops it)", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.blocks.close(verbose=False)
