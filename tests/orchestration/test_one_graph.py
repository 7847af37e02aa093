"""The stage table, the Dagster graph, dvc.yaml and the checks describe one graph."""

import ast
import graphlib
from pathlib import Path

import dagster as dg
import pytest
import yaml

from ml.pipeline.table import STAGES
from ml.quality.model_tables import TABLES
from ml.quality.rules import RULES
from ml.settings.profile import ROOT, load_params
from orchestration.definitions import defs
from orchestration.studies import PAPER_ASSETS

GRAPH = defs.resolve_asset_graph()
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
PAPER = {asset.key.to_user_string() for asset in PAPER_ASSETS}
BEYOND = {"sealed_data"} | PAPER  # assets that are no stage
NO_RULES = {"promotion", "report"}  # a verdict and a page: nothing is built on their data


def names(keys) -> set[str]:
    return {key.to_user_string() for key in keys}


def test_every_stage_is_an_asset_and_a_dvc_stage():
    stages = {stage.name for stage in STAGES}
    assert names(GRAPH.get_all_asset_keys()) == stages | BEYOND
    assert set(DVC["stages"]) == stages


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_asset_agrees_with_the_table(stage):
    node = GRAPH.get(dg.AssetKey(stage.name))
    assert names(node.parent_keys) == set(stage.inputs)
    assert node.code_version == str(stage.version)
    assert node.pools == set(), "a pool is a row that a killed run keeps: orchestration/turns.py"
    compute = "gpu" if stage.heavy else "cpu"
    op = defs.resolve_assets_def(stage.name).op
    assert node.tags["compute"] == op.tags["compute"] == compute
    assert bool(op.retry_policy) == stage.heavy


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_dvc_agrees_with_the_table(stage):
    entry, params = DVC["stages"][stage.name], load_params()
    assert entry["cmd"] == f"${{python}} -m ml {stage.name}"
    assert entry["outs"] == [{f"data/{params.profile}/{stage.name}": {"persist": True}}]
    assert entry["params"] == list(stage.sections)
    assert entry["always_changed"] is True, "what is stale is for the stage to say"
    data = {dep for dep in entry["deps"] if dep.startswith(f"data/{params.profile}/")}
    assert data == {f"data/{params.profile}/{name}" for name in stage.inputs}
    models = {dep for dep in entry["deps"] if dep.startswith("data/foundation/")}
    sections = [place.split(".") for place in stage.models]
    named = {getattr(getattr(params, section), name) for section, name in sections}
    assert models == named - {None}
    assert all((ROOT / dep).exists() for dep in entry["deps"] if dep.startswith("ml/vocab"))


def test_every_boundary_has_blocking_checks():
    assert set(RULES) == set(TABLES) == {stage.name for stage in STAGES} - NO_RULES
    for stage, rules in RULES.items():
        checks = GRAPH.get_check_keys_for_assets({dg.AssetKey(stage)})
        assert {check.name for check in checks} == {rule.name for rule in rules}
        assert all(GRAPH.get_check_spec(check).blocking for check in checks)


def test_groups_follow_the_graph():
    """The UI draws groups as boxes; two that depend on each other would be a circle."""
    group = {key: GRAPH.get(key).group_name for key in GRAPH.get_all_asset_keys()}
    edges = {
        (group[parent], group[key])
        for key in group
        for parent in GRAPH.get(key).parent_keys
        if group[parent] != group[key]
    }
    graphlib.TopologicalSorter(
        {g: {a for a, b in edges if b == g} for g in group.values()}
    ).prepare()  # raises CycleError


def test_rule_names_are_unique_in_a_stage():
    for stage, rules in RULES.items():
        assert len({rule.name for rule in rules}) == len(rules), stage


def test_asset_bodies_stay_small():
    """An asset is a name in the graph; what it does belongs to ml/. 15 lines are the limit."""
    tree = ast.parse(Path(ROOT / "orchestration" / "assets.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.body[0].lineno < 15, node.name
