"""A command beside the head of a Ray cluster with a dashboard, in a network and a process space of
their own: nothing is reached from outside, and all ends with the command.

python -m tests.builders.ray_head <folder> <command ...>

The command finds the dashboard at DASHBOARD and the token in its environment. Leaves in the folder
`jobs.json`, what the job API lists, and `listening.json`, the local addresses of /proc/net/tcp.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from ml.settings.profile import ROOT

DASHBOARD = "http://127.0.0.1:8265"
ALONE = ("unshare", "-rnpf", "--kill-child", "--mount-proc")
TRIES = 3  # the raylet gives up when its agent needs over 15 s, on a busy machine


def possible() -> bool:
    """Whether this user may have networks and processes of its own."""
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def beside(folder: Path, *command: str, seconds: float = 900) -> subprocess.CompletedProcess[str]:
    """The command's output and exit status; 99 when Ray did not start."""
    inner = [sys.executable, "-m", "tests.builders.ray_head", str(folder), *command]
    return subprocess.run(
        [*ALONE, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *inner],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def start(folder: str) -> None:
    ray = Path(sys.executable).parent / "ray"
    command = [ray, "start", "--head", "--num-cpus", "2", "--num-gpus", "0"]
    command += ["--node-ip-address", "127.0.0.1", "--port", "6399", "--temp-dir", folder]
    command += ["--include-dashboard", "true", "--dashboard-host", "127.0.0.1"]
    command += ["--dashboard-port", DASHBOARD.rpartition(":")[2]]
    command += ["--object-store-memory", str(100 * 10**6)]
    for _ in range(TRIES):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode == 0:
            return
        subprocess.run([ray, "stop", "--force"], capture_output=True)
    print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    sys.exit(99)


def listening() -> list[str]:
    """ "address:port" in hexadecimal, as the kernel writes them."""
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return [line[1] for line in lines if line[3] == "0A"]


def main(folder: Path, command: list[str]) -> int:
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as place:
        start(place)
        rc = subprocess.run(command).returncode
        from ray.job_submission import JobSubmissionClient

        jobs = [
            {
                "id": job.submission_id,
                "status": job.status,
                "of": job.metadata,
                "env": job.runtime_env,
            }
            for job in JobSubmissionClient(DASHBOARD).list_jobs()
            if job.submission_id
        ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    (folder / "listening.json").write_text(json.dumps(listening()))
    return rc


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
