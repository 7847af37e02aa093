"""Great Expectations at the stage boundaries: validate a stage's facts, remember the verdict.

The verdict goes to `quality.json` in the stage's state, where `ml.pipeline.runner.run_stage`
honours it in whatever run; `quality_page.py` shows the verdicts of all stages. Which rules hold is
in `suites.py`, what they judge in `tables.py`. GX is imported when something has to be judged: 3 to
7 s; it keeps nothing, and reports nothing.
"""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from ml.pipeline.recipe import refuse_failed_inputs
from ml.pipeline.table import STAGE
from ml.pipeline.workspace import Workspace
from ml.quality.model_tables import TABLES
from ml.quality.rule import Rule
from ml.quality.rules import RULES, SETTINGS, SUITE_VERSION, bounds
from ml.settings.params import Params
from ml.store.files import read_note, sha256_json, write_json
from ml.store.manifest import read_manifest
from ml.words.vocabulary import load_vocabulary
from orchestration.quality_page import page_of, write_page
from orchestration.turns import turn

EXAMPLES = 5  # offending rows kept with a result
# What names a row in the tables, and is shown of an offending one.
NAMES = ("key", "set", "class", "entity", "word", "model", "score", "step")


@dataclass(frozen=True)
class Result:
    """One rule's outcome."""

    name: str
    passed: bool
    observed: object  # what GX observed, or the offending values' count
    bound: str  # what was demanded
    unexpected_percent: float  # of the judged rows, 0..100
    examples: list[str]  # offending rows: their names, and the value that breaks the rule

    @property
    def says(self) -> str:
        """One line: what was seen, what was demanded, what broke it."""
        broken = f"; {', or '.join(self.examples)}" if self.examples else ""
        return f"observed {self.observed}, expected {self.bound}{broken}"


@dataclass(frozen=True)
class Verdict:
    stage: str
    digest: str  # of the manifest that was judged
    passed: bool
    results: list[Result]
    page: Path  # all verdicts of the workspace

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
        said = read_note(workspace.state(stage) / "quality.json", dict) or {}
        if said["key"] != key_of(stage, digest, params):
            return None
        results = [Result(**entry) for entry in said["results"]]
        return Verdict(stage, digest, said["passed"], results, page_of(workspace))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def validate(stage: str, params: Params, workspace: Workspace) -> Verdict:
    """Judges a finished stage; a verdict on the same manifest by the same rules is kept.

    Raises ManifestError when the stage's folder is unfinished or damaged.
    """
    if known := known_verdict(stage, params, workspace):
        return known
    with turn(page_of(workspace).with_name(".lock"), f"judging {workspace.folder(stage)}"):
        if known := known_verdict(stage, params, workspace):  # by whom we waited for
            return known
        started = time.perf_counter()
        digest = read_manifest(workspace.folder(stage)).digest
        results = judge(stage, TABLES[stage](params, workspace), bounds(stage, params))
        verdict = Verdict(
            stage, digest, all(r.passed for r in results), results, page_of(workspace)
        )
        write_json(
            workspace.state(stage) / "quality.json",
            {
                "digest": digest,
                "key": key_of(stage, digest, params),
                "passed": verdict.passed,
                "failures": verdict.failures,
                "results": [asdict(r) for r in results],
                "seconds": time.perf_counter() - started,
            },
        )
        write_page(workspace)
    return verdict


def ensure_quality(stage: str, params: Params, workspace: Workspace) -> None:
    """Judges every input of a stage that has no verdict yet.

    Raises QualityError when one failed, in this run or an earlier one: Dagster's blocking checks
    hold inside one run only.
    """
    for name in STAGE[stage].inputs:
        if name in RULES:
            validate(name, params, workspace)
    refuse_failed_inputs(STAGE[stage], workspace)


def judge(stage: str, tables: dict[str, pd.DataFrame], limits: dict) -> list[Result]:
    """Runs the stage's rules table by table."""
    context, results = open_context(), []
    for table in dict.fromkeys(rule.table for rule in RULES[stage]):
        rules = [rule for rule in RULES[stage] if rule.table == table]
        results += run_suite(context, f"{stage} - {table}", rules, tables[table], limits)
    return results


def open_context():
    """A GX context in memory."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # before GX's first import, or it phones home
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
    )

    return gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            analytics_enabled=False,
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            data_docs_sites={},
            progress_bars={"globally": False, "metric_calculations": False},
        ),
    )


def run_suite(
    context, name: str, rules: list[Rule], frame: pd.DataFrame, limits: dict
) -> list[Result]:
    """One GX suite on one table. An empty table fails, because GX would pass it unseen."""
    import great_expectations as gx
    from great_expectations import expectations

    resolved = [
        {
            key: limits[value[1:]] if isinstance(value, str) and value.startswith("@") else value
            for key, value in rule.arguments.items()
        }
        for rule in rules
    ]
    suite = gx.ExpectationSuite(
        name=name,
        expectations=[
            getattr(expectations, rule.kind)(
                **arguments, description=rule.says, meta={"rule": rule.name}
            )
            for rule, arguments in zip(rules, resolved, strict=True)
        ],
    )
    context.suites.add_or_update(suite)
    batch = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=name,
            suite=context.suites.get(name),
            data=batch.add_batch_definition_whole_dataframe(name),
        )
    )
    named = [c for c in frame.columns if c in NAMES]
    columns = [c for c in frame.columns if c in named or any(c in _names(a) for a in resolved)]
    outcome = definition.run(
        batch_parameters={"dataframe": frame[columns]},
        result_format={"result_format": "SUMMARY", "unexpected_index_column_names": named},
    )
    by_rule = {r.expectation_config.meta["rule"]: r for r in outcome.results}
    return [
        _result(rule, arguments, by_rule[rule.name], len(frame))
        for rule, arguments in zip(rules, resolved, strict=True)
    ]


def _names(arguments: dict) -> list[str]:
    keys = ("column", "column_A", "column_B")
    return [arguments[k] for k in keys if k in arguments] + arguments.get("column_list", [])


def _result(rule: Rule, arguments: dict, outcome, rows: int) -> Result:
    details = outcome.result or {}
    if outcome.exception_info.get("raised_exception"):
        observed = outcome.exception_info.get("exception_message", "an exception")
        return Result(rule.name, False, str(observed), _bound(rule, arguments), 100.0, [])
    count = details.get("unexpected_count", 0)
    observed = details.get("observed_value", f"{count} of {rows} rows break it")
    rows_found = details.get("partial_unexpected_index_list") or []
    if not rows_found or not isinstance(rows_found[0], dict):  # rows without a name
        rows_found = [{"": value} for value in details.get("partial_unexpected_list", [])]
    examples = [
        ", ".join(
            f"{name} {row[name]}".strip()
            for name in sorted(row, key=lambda name: name not in NAMES)
        )
        for row in rows_found[:EXAMPLES]
    ]
    passed = bool(outcome.success) and rows > 0
    return Result(
        rule.name,
        passed,
        observed if rows else "no rows",
        _bound(rule, arguments),
        float(details.get("unexpected_percent") or 0.0),
        examples,
    )


def _bound(rule: Rule, arguments: dict) -> str:
    """What was demanded, in words and figures: "grey levels vary (4 to 128, of 98 %)"."""
    figures = []
    if "min_value" in arguments:
        figures.append(f"{arguments['min_value']:g} to {arguments['max_value']:g}")
    if values := arguments.get("value_set"):
        more = f" and {len(values) - 6} more" if len(values) > 6 else ""
        figures.append("one of " + ", ".join(repr(v) for v in values[:6]) + more)
    if arguments.get("mostly", 1.0) < 1:
        figures.append(f"of {arguments['mostly']:.0%}")
    return f"{rule.says} ({', '.join(figures)})" if figures else rule.says
