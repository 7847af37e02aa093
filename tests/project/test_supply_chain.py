"""`make audit` and `make sbom`: advisories from a real server of their protocol, a bill without
anything of this machine."""

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import pytest

from ml.settings.profile import ROOT
from tests.builders.answering import Answering, serving

KNOWN = {
    "id": "PYSEC-2026-9",
    "aliases": ["CVE-2026-9"],
    "summary": "reads what it should not",
    "affected": [
        {
            "package": {"name": "pillow", "ecosystem": "PyPI"},
            "ranges": [
                {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]},
            ],
        }
    ],
}


@contextmanager
def advisories(vulnerable: str):
    """A server that speaks OSV's protocol and knows of one package."""

    class Answer(Answering):
        def do_POST(self):
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer({"vulns": [KNOWN]} if query["package"]["name"] == vulnerable else {})

    with serving(Answer) as address:
        yield f"{address}/v1/query"


def audit(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """`.ci/audit.py`, another list of excuses in `code`."""
    start = (
        "import sys, pathlib; sys.path.insert(0, '.ci'); import audit\n"
        f"{code}\nsys.exit(audit.main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", start, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_known_vulnerability_fails_and_one_that_is_excused_does_not(tmp_path):
    excuses = tmp_path / "advisories.toml"
    replaced = f"audit.EXCUSED = pathlib.Path({str(excuses)!r})"
    with advisories("pillow") as url:
        asked = ("-s", "osv", "--osv-url", url)
        done = audit(*asked)
        assert done.returncode == 1 and "1 not excused" in done.stdout, done
        assert "PYSEC-2026-9, CVE-2026-9, mended in 99.0" in done.stdout
        excuses.write_text('"CVE-2026-9" = "Nothing here reads such files."\n')
        done = audit(*asked, code=replaced)
        assert done.returncode == 0 and "excused: Nothing here reads" in done.stdout, done
        excuses.write_text('"CVE-2026-9" = ""\n')
        assert "expected the reason" in audit(*asked, code=replaced).stderr
    with advisories("nothing") as url:
        done = audit("-s", "osv", "--osv-url", url)
        assert done.returncode == 0 and " 0 vulnerabilities" in done.stdout, done


def test_where_no_advisory_can_be_read_it_says_so_and_is_no_failure():
    done = audit("-s", "osv", "--osv-url", "http://127.0.0.1:9/v1/query")
    assert done.returncode == 0 and "audit: NOT DONE" in done.stdout, done


def test_the_excuses_of_this_project_have_reasons():
    done = audit(code="audit.asked = lambda arguments: sys.exit(7)")
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize("target", ["audit", "sbom"])
def test_the_targets_run_what_is_tested(target):
    told = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True).stdout
    assert {"audit": ".ci/audit.py", "sbom": "cyclonedx-py environment"}[target] in told


def installed(name: str) -> bool:
    """Whether the environment has it: the development's tools may be left out."""
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


@pytest.mark.slow  # a minute on a busy machine
def test_the_bill_names_every_pinned_package_and_nothing_of_this_machine(tmp_path):
    told = subprocess.run(["make", "-n", "sbom"], cwd=ROOT, capture_output=True, text=True).stdout
    line = next(line for line in told.splitlines() if "cyclonedx-py" in line)
    options = line.split("cyclonedx-py ", 1)[1].split()
    subprocess.run(["make", ".venv/tools/.installed"], cwd=ROOT, check=True, capture_output=True)
    cyclonedx, bills = ROOT / ".venv" / "tools" / "bin" / "cyclonedx-py", []
    for name in ("one.json", "two.json"):
        file = tmp_path / name
        command = [str(file) if word == "sbom.json" else word for word in options]
        command[-1] = sys.executable
        subprocess.run([cyclonedx, *command], cwd=ROOT, check=True, capture_output=True)
        bills.append(file.read_text())
    assert bills[0] == bills[1]
    assert not re.findall(r'"(?:file:)?/(?:\w+/)+\w+', bills[0]) and str(ROOT) not in bills[0]
    found = {part["purl"].split("?")[0] for part in json.loads(bills[0])["components"]}
    pinned = [line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().split("\n")]
    own = {name: version(name) for name in pinned if name and name[0] != "#" and installed(name)}
    assert len(own) > 40
    assert not [name for name, at in own.items() if f"pkg:pypi/{name.lower()}@{at}" not in found]
