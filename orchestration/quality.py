"""Great Expectations at the stage boundaries: validate a stage's facts, remember the verdict.

The verdict goes to `quality.json` in the stage's state, where `ml.stages.run_stage` honours it in
whatever run; GX's Data Docs of all stages are one site in `data/<profile>/quality/data_docs`.
Which rules hold is in `suites.py`, what they judge in `tables.py`. GX is imported when something
has to be judged: 3 to 7 s.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from ml.files import write_json
from ml.manifest import read_manifest
from ml.params import Params
from ml.stages import STAGE, Workspace, refuse_failed_inputs
from orchestration.model_tables import TABLES
from orchestration.suites import RULES, SUITE_VERSION, Rule, bounds

EXAMPLES = 5  # offending values kept with a result


@dataclass(frozen=True)
class Result:
    """One rule's outcome."""

    name: str
    passed: bool
    observed: object  # what GX observed, or the offending values' count
    bound: str  # what was demanded
    unexpected_percent: float  # of the judged rows, 0..100
    examples: list[str]  # of offending values


@dataclass(frozen=True)
class Verdict:
    stage: str
    digest: str  # of the manifest that was judged
    passed: bool
    results: list[Result]
    data_docs: Path  # index page of the site

    @property
    def failures(self) -> list[str]:
        return [f"{r.name}: observed {r.observed}, expected {r.bound}"
                for r in self.results if not r.passed]


def docs_page(workspace: Workspace) -> Path:
    return workspace.data / "quality" / "data_docs" / "index.html"


def known_verdict(stage: str, workspace: Workspace) -> Verdict | None:
    """The verdict on the stage's folder as it is now, by the rules as they are now."""
    path = workspace.state(stage) / "quality.json"
    if not path.is_file():
        return None
    said = json.loads(path.read_text())
    digest = read_manifest(workspace.folder(stage), verify=False).digest
    if said["digest"] != digest or said.get("suite_version") != SUITE_VERSION:
        return None
    return Verdict(stage, digest, said["passed"], [Result(**r) for r in said["results"]],
                   docs_page(workspace))


def validate(stage: str, params: Params, workspace: Workspace) -> Verdict:
    """Judges a finished stage; a verdict on the same manifest by the same rules is kept.

    Raises ManifestError when the stage's folder is unfinished or damaged.
    """
    if known := known_verdict(stage, workspace):
        return known
    started = time.perf_counter()
    digest = read_manifest(workspace.folder(stage)).digest
    results = judge(stage, TABLES[stage](params, workspace), bounds(stage, params), workspace)
    verdict = Verdict(stage, digest, all(r.passed for r in results), results,
                      docs_page(workspace))
    write_json(workspace.state(stage) / "quality.json", {
        "digest": digest, "suite_version": SUITE_VERSION, "passed": verdict.passed,
        "failures": verdict.failures, "results": [asdict(r) for r in results],
        "seconds": time.perf_counter() - started})
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


def judge(stage: str, tables: dict[str, pd.DataFrame], limits: dict,
          workspace: Workspace) -> list[Result]:
    """Runs the stage's rules table by table, and adds the results to the Data Docs."""
    context, results = open_context(workspace.data / "quality"), []
    earlier = set(context.validation_results_store.list_keys())
    for table in dict.fromkeys(rule.table for rule in RULES[stage]):
        rules = [rule for rule in RULES[stage] if rule.table == table]
        results += run_suite(context, f"{stage} - {table}", rules, tables[table], limits)
    new = set(context.validation_results_store.list_keys()) - earlier
    context.build_data_docs(resource_identifiers=list(new))  # all pages again: three times as long
    return results


def open_context(folder: Path):
    """A GX context that keeps suites, results and the site below `folder`, and reports nothing."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # before GX's first import, or it phones home
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig

    def files(name: str) -> dict:
        return {"class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(folder / name)}

    memory = {"class_name": "InMemoryStoreBackend"}
    return gx.get_context(mode="ephemeral", project_config=DataContextConfig(
        analytics_enabled=False,
        progress_bars={"globally": False, "metric_calculations": False},
        expectations_store_name="suites", validation_results_store_name="results",
        checkpoint_store_name="checkpoints",
        stores={
            "suites": {"class_name": "ExpectationsStore", "store_backend": files("suites")},
            "results": {"class_name": "ValidationResultsStore", "store_backend": files("results")},
            "checkpoints": {"class_name": "CheckpointStore", "store_backend": memory},
            "validation_definition_store": {"class_name": "ValidationDefinitionStore",
                                            "store_backend": memory},
        },
        data_docs_sites={"quality": {
            "class_name": "SiteBuilder", "store_backend": files("data_docs"),
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"}}},
    ))


def run_suite(context, name: str, rules: list[Rule], frame: pd.DataFrame,
              limits: dict) -> list[Result]:
    """One GX suite on one table. An empty table fails, because GX would pass it unseen."""
    import great_expectations as gx
    from great_expectations import expectations

    resolved = [{key: limits[value[1:]] if isinstance(value, str) and value.startswith("@")
                 else value for key, value in rule.arguments.items()} for rule in rules]
    suite = gx.ExpectationSuite(name=name, expectations=[
        getattr(expectations, rule.kind)(**arguments, description=rule.says,
                                         meta={"rule": rule.name})
        for rule, arguments in zip(rules, resolved, strict=True)])
    context.suites.add_or_update(suite)
    batch = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    definition = context.validation_definitions.add(gx.ValidationDefinition(
        name=name, suite=context.suites.get(name),
        data=batch.add_batch_definition_whole_dataframe(name)))
    columns = [c for c in frame.columns if any(c in _names(a) for a in resolved)]
    outcome = definition.run(batch_parameters={"dataframe": frame[columns]})
    by_rule = {r.expectation_config.meta["rule"]: r for r in outcome.results}
    return [_result(rule, arguments, by_rule[rule.name], len(frame))
            for rule, arguments in zip(rules, resolved, strict=True)]


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
    examples = [str(v) for v in details.get("partial_unexpected_list", [])[:EXAMPLES]]
    passed = bool(outcome.success) and rows > 0
    return Result(rule.name, passed, observed if rows else "no rows", _bound(rule, arguments),
                  float(details.get("unexpected_percent") or 0.0), examples)


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
