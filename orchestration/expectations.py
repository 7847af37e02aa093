"""Great Expectations at the stage boundaries: it runs a stage's rules on the stage's tables.

The rules are in `ml/quality/rules.py`, the tables in `ml/quality/tables.py`, and how a verdict is
kept is in `ml/quality/verdicts.py`. GX is imported only when something has to be judged, since that
takes 3 to 7 s; it stores nothing, and sends nothing.
"""

import os
import time

import pandas as pd

from ml.errors import QualityError
from ml.pipeline.recipe import made_from, refuse_failed, refuse_failed_inputs
from ml.pipeline.table import STAGE
from ml.pipeline.workspace import Workspace
from ml.quality.page import page_of
from ml.quality.rule import Rule
from ml.quality.rules import RULES, bounds
from ml.quality.verdicts import Result, Verdict, keep_verdict, known_verdict
from ml.settings.params import Params
from ml.store.manifest import read_manifest
from orchestration.turns import turn

EXAMPLES = 5  # offending rows that a result keeps
NOT_JUDGED = "not judged: checks.placement is false"


# What names a row in the tables, and is shown of an offending one.
NAMES = ("key", "set", "class", "entity", "word", "model", "score", "step")


def validate(stage: str, params: Params, workspace: Workspace) -> Verdict:
    """Judges a finished stage, or finds the verdict on the same manifest by the same rules.

    Raises ManifestError when the stage's folder is unfinished or damaged.
    """
    if known := known_verdict(stage, params, workspace):
        return known
    from ml.quality.tables import TABLES  # heavy, and definitions load without it

    with turn(page_of(workspace).with_name(".lock"), f"judging {workspace.folder(stage)}"):
        if known := known_verdict(stage, params, workspace):  # of the run that we waited for
            return known
        started = time.perf_counter()
        digest = read_manifest(workspace.folder(stage)).digest
        results = judge(stage, TABLES[stage](params, workspace), bounds(stage, params))
        verdict = Verdict(stage, digest, results, page_of(workspace))
        keep_verdict(verdict, time.perf_counter() - started, params, workspace)
    return verdict


def ensure_quality(stage: str, params: Params, workspace: Workspace) -> None:
    """Judges every input of a stage that has no verdict yet, and whatever else it is made from and
    failed by other rules or settings than those of now.

    Raises QualityError when one failed, in this run or an earlier one, since Dagster's blocking
    checks block within one run only.
    """
    for name in made_from(STAGE[stage]):
        if name in RULES and (name in STAGE[stage].inputs or _failed(name, workspace)):
            validate(name, params, workspace)
    refuse_failed_inputs(STAGE[stage], workspace)


def _failed(stage: str, workspace: Workspace) -> bool:
    try:
        refuse_failed([stage], workspace, stage)
    except QualityError:
        return True
    return False


def judge_all(params: Params, workspace: Workspace) -> None:
    """Judges every stage with rules that has no verdict yet."""
    for name in RULES:
        validate(name, params, workspace)


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
    """Runs one GX suite on one table. An empty table fails here, and so does a missing value (NaN)
    in a column that a rule judges; GX would let both pass."""
    import great_expectations as gx
    from great_expectations import expectations

    resolved = [rule.resolved(limits) for rule in rules]
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
        _result(rule, arguments, by_rule[rule.name], frame)
        if limits.get("placement", True) or not rule.placement
        else Result(rule.name, True, NOT_JUDGED, rule.demand(arguments), 0.0, [])
        for rule, arguments in zip(rules, resolved, strict=True)
    ]


def _names(arguments: dict) -> list[str]:
    keys = ("column", "column_A", "column_B")
    return [arguments[k] for k in keys if k in arguments] + arguments.get("column_list", [])


def _result(rule: Rule, arguments: dict, outcome, frame: pd.DataFrame) -> Result:
    details, rows = outcome.result or {}, len(frame)
    if outcome.exception_info.get("raised_exception"):
        observed = outcome.exception_info.get("exception_message", "an exception")
        return Result(rule.name, False, str(observed), rule.demand(arguments), 100.0, [])
    missing = frame[frame[_names(arguments)].isna().any(axis=1)]
    if len(missing):
        named = missing[[c for c in frame.columns if c in NAMES]].head(EXAMPLES)
        broken = named.to_dict("records")
        observed = f"{len(missing)} of {rows} rows have no value"
        share = 100 * len(missing) / rows
        return Result(
            rule.name,
            False,
            observed,
            rule.demand(arguments),
            share,
            _examples(broken),
            _places(broken),
        )
    count = details.get("unexpected_count", 0)
    observed = details.get("observed_value", f"{count} of {rows} rows break it")
    rows_found = details.get("partial_unexpected_index_list") or []
    if not rows_found or not isinstance(rows_found[0], dict):  # rows without a name
        rows_found = [{"": value} for value in details.get("partial_unexpected_list", [])]
    broken = rows_found[:EXAMPLES]
    passed = bool(outcome.success) and rows > 0
    return Result(
        rule.name,
        passed,
        observed if rows else "no rows",
        rule.demand(arguments),
        float(details.get("unexpected_percent") or 0.0),
        _examples(broken),
        _places(broken),
    )


def _examples(rows: list[dict]) -> list[str]:
    """Rows in words, what names them first: "key train-000003, class cat, area 0.9"."""
    return [
        ", ".join(
            f"{name} {round(row[name], 4) if isinstance(row[name], float) else row[name]}".strip()
            for name in sorted(row, key=lambda name: (*NAMES, name).index(name))
        )
        for row in rows
    ]


def _places(rows: list[dict]) -> list[dict[str, str]]:
    """Where the pictures of rows are found; [] for rows without a key."""
    if not all("key" in row for row in rows):
        return []
    return [{n: str(row[n]) for n in ("key", "entity") if n in row} for row in rows]
