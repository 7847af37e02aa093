"""`python -m orchestration.mlflow.serve [--root R] [--tracking-uri U] [--port 5000]`: MLflow's page
of the registry that a run with the same root and address wrote into, on 127.0.0.1.
"""

import os
import sys
from pathlib import Path

from ml.arguments import add_workspace, make_parser, number
from ml.errors import exit_path
from orchestration.home import home_of
from orchestration.mlflow.tracking import SERVERS, SQLITE, mask, resolve, with_login


@exit_path
def main(arguments: list[str] | None = None) -> None:
    parser = make_parser("python -m orchestration.mlflow.serve", __doc__)
    add_workspace(parser)
    parser.add_argument("--tracking-uri", help="of MLflow, when not <root>/mlflow.db")
    parser.add_argument("--port", type=number(int, 1, 65535), default=5000)
    chosen = parser.parse_args(arguments)
    environment = environment_of(
        *resolve(chosen.tracking_uri or "", "", home_of(str(chosen.root))), chosen.port
    )
    python = Path(sys.executable)
    os.execve(python, [str(python), "-m", "mlflow", "server"], environment)


def environment_of(uri: str, artifacts: str | None, port: int) -> dict[str, str]:
    """What MLflow's server reads its options from: an address with a login is no argument, since
    arguments are shown to everybody. Raises ValueError for a server, and for a file that is not
    there, of which MLflow would make an empty registry."""
    if artifacts is None or uri.startswith(SERVERS):
        raise ValueError(f"{mask(uri)} is a server already: open it in a browser")
    file = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and not file.is_file():
        raise ValueError(
            f"there is no registry {file}: expected one that a run made (`make run`); name its "
            "root (ROOT=folder) or its address (TRACKING_URI=sqlite:///file)"
        )
    return os.environ | {
        "MLFLOW_BACKEND_STORE_URI": with_login(uri),
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": artifacts,
        "MLFLOW_HOST": "127.0.0.1",
        "MLFLOW_PORT": str(port),
    }


if __name__ == "__main__":
    sys.exit(main())
