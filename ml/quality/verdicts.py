"""Verdicts on a stage's data: what a rule found, and the memory of it beside the data.

A verdict is `quality.json` in the stage's state, where `ml.pipeline.runner.run_stage` honours it in
whatever run, and a part of the page of all verdicts (`ml.quality.page`). It holds for as long as
its key does: the data, the rules, and the settings that these depend on.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from ml.pipeline.workspace import VERDICT, Workspace
from ml.quality.page import page_of, write_page
from ml.quality.rules import RULES, SETTINGS, SUITE_VERSION, bounds
from ml.settings.params import Params
from ml.store.files import Damaged, say, sha256_json, write_json
from ml.store.manifest import read_manifest
from ml.store.seals import read_sealed, sealed
from ml.words.vocabulary import load_vocabulary

KEPT = VERDICT | {"key": str, "results": list}
"""What `quality.json` must hold to be used again."""


@dataclass(frozen=True)
class Result:
    """One rule's outcome."""

    name: str
    passed: bool
    observed: object  # a number, or how many rows break the rule
    bound: str  # what was demanded
    unexpected_percent: float  # of the judged rows, 0..100
    examples: list[str]  # offending rows: their names, and the value that breaks the rule
    rows: list[dict[str, str]] = field(default_factory=list)
    """Key, and entity where there is one, of each example; [] where rows have no key."""

    @property
    def says(self) -> str:
        """One line: what was seen, what was demanded, what broke it."""
        broken = f"; {', or '.join(self.examples)}" if self.examples else ""
        return f"observed {self.observed}, expected {self.bound}{broken}"


@dataclass(frozen=True)
class Verdict:
    """The results of all rules of a stage."""

    stage: str
    digest: str  # of the manifest that was judged
    results: list[Result]
    page: Path  # all verdicts of the workspace

    @property
    def passed(self) -> bool:
        return all(result.passed for result in self.results)

    @property
    def failures(self) -> list[str]:
        return [f"{r.name}: {r.says}" for r in self.results if not r.passed]


def key_of(stage: str, digest: str, params: Params) -> str:
    """Names a verdict: the data, the rules, and all that their bounds and tables depend on."""
    return sha256_json(
        {
            "manifest": digest,
            "suite_version": SUITE_VERSION,
            "rules": [asdict(rule) for rule in RULES[stage]],
            "bounds": bounds(stage, params),
            "settings": {name: params.section(name) for name in SETTINGS},
            "vocabulary": load_vocabulary(params.vocabulary).digest,
        }
    )


def known_verdict(stage: str, params: Params, workspace: Workspace) -> Verdict | None:
    """The verdict on the stage's folder as it is now, by the rules and bounds as they are now.

    A file that is damaged, or of another version of this code, is no verdict: judged again.
    """
    digest = read_manifest(workspace.folder(stage), verify=False).digest
    try:
        note = read_sealed(workspace.state(stage) / "quality.json", KEPT)
        if note is None or note["key"] != key_of(stage, digest, params):
            return None
        results = [Result(**entry) for entry in note["results"]]
        return Verdict(stage, digest, results, page_of(workspace))
    except Damaged as error:
        say(f"{error}; judged again")
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_verdict(verdict: Verdict, seconds: float, params: Params, workspace: Workspace) -> None:
    """Writes a verdict to the stage's state, and the page anew. seconds: that judging took."""
    write_json(
        workspace.state(verdict.stage) / "quality.json",
        sealed(
            {
                "digest": verdict.digest,
                "key": key_of(verdict.stage, verdict.digest, params),
                "passed": verdict.passed,
                "failures": verdict.failures,
                "results": [asdict(result) for result in verdict.results],
                "seconds": seconds,
            }
        ),
    )
    write_page(workspace)
