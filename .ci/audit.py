"""`make audit`: are vulnerabilities known of the packages that constraints.txt pins?

Asks PyPI's advisories by pip-audit (or another service: its own options go through). Ends with 0
when none is known, and also where no advisory can be read, which the last line then says: pip-audit
itself calls packages that it could not look up free of vulnerabilities. Ends with 1 for one that
`.ci/advisories.toml` does not excuse.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXCUSED = ROOT / ".ci" / "advisories.toml"
UNREACHABLE = ("ConnectionError", "Could not connect", "Max retries", "ServiceError", "timed out")


def asked(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = ["-m", "pip_audit", "-r", str(ROOT / "constraints.txt"), "--no-deps", "--disable-pip"]
    quiet = ["-f", "json", "--progress-spinner", "off"]
    return subprocess.run(
        [sys.executable, *command, *quiet, *arguments], capture_output=True, text=True
    )


def excused(file: Path) -> dict[str, str]:
    """Advisory -> why it does not matter here. Raises ValueError for one without a reason."""
    listed = tomllib.loads(file.read_text())
    for name, reason in listed.items():
        if not isinstance(reason, str) or len(reason.split()) < 3:
            raise ValueError(f"{file}: {name}: expected the reason as a sentence, got {reason!r}")
    return listed


def main(arguments: list[str]) -> int:
    excuses, done = excused(EXCUSED), asked(arguments)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        if any(word in done.stderr for word in UNREACHABLE):
            print(f"audit: NOT DONE, no advisory could be read from here ({last[:200]})")
            return 0
        print(f"audit: pip-audit failed: {last[:2000]}", file=sys.stderr)
        return 1
    found = [package for package in packages if "skip_reason" not in package]
    left_out = [package["name"] for package in packages if "skip_reason" in package]
    if not found:
        print(f"audit: NOT DONE, no advisory could be read from here: {packages[0]['skip_reason']}")
        return 0
    known = [(package, each) for package in found for each in package["vulns"]]
    for package, each in known:
        names = [each["id"], *each.get("aliases", [])]
        reason = next((excuses[name] for name in names if name in excuses), None)
        mended = ", ".join(each["fix_versions"]) or "no version"
        print(
            f"{package['name']} {package['version']}: {', '.join(names)}, mended in {mended}"
            + (f"; excused: {reason}" if reason else "")
        )
    names = {name for _, each in known for name in (each["id"], *each.get("aliases", []))}
    for name in excuses.keys() - names:
        print(f"{name} is excused in {EXCUSED.name}, and no pinned version has it: take it out")
    bad = [each for _, each in known if not {each["id"], *each.get("aliases", [])} & excuses.keys()]
    print(
        f"audit: {len(found)} of {len(packages)} packages looked up, {len(known)} vulnerabilities, "
        f"{len(bad)} not excused" + (f"; not looked up: {', '.join(left_out)}" if left_out else "")
    )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
