"""The stage table, the Dagster graph, dvc.yaml and the checks describe one graph."""

import ast
import dataclasses
import graphlib
from collections.abc import Iterable
from pathlib import Path

import dagster as dg
import pytest
import yaml

from ml.pipeline.recipe import recipe_of
from ml.pipeline.table import STAGE, STAGES
from ml.pipeline.workspace import Workspace
from ml.quality.rules import RULES
from ml.quality.tables import TABLES
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
def test_asset_is_labelled_by_the_table(stage):
    spec = defs.resolve_assets_def(stage.name).get_asset_spec(dg.AssetKey(stage.name))
    assert stage.description and stage.group and stage.kinds
    assert spec.description == stage.description
    assert spec.group_name == stage.group
    assert spec.kinds == set(stage.kinds)


def test_labels_are_no_part_of_a_recipe(tmp_path):
    """Rewording a description must not make a finished folder again."""
    params, workspace = load_params("ci"), Workspace(tmp_path, "ci")
    for stage in (STAGE["prompts"], STAGE["benchmark"]):  # they need no input
        bare = dataclasses.replace(stage, description="", group="", kinds=())
        assert bare != stage
        assert recipe_of(bare, params, workspace) == recipe_of(stage, params, workspace)


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


def order_of_groups(edges: Iterable[tuple[str, str]], group: dict[str, str]) -> list[str]:
    """The groups, earlier ones first. Raises CycleError when their arrows form a circle."""
    order = graphlib.TopologicalSorter({name: set() for name in group.values()})
    for source, target in edges:
        if group[source] != group[target]:
            order.add(group[target], group[source])
    return list(order.static_order())


def test_groups_follow_the_graph():
    """The UI draws groups as boxes; two that depend on each other would be a circle."""
    keys = GRAPH.get_all_asset_keys()
    group = {key.to_user_string(): GRAPH.get(key).group_name for key in keys}
    edges = [(p, key.to_user_string()) for key in keys for p in names(GRAPH.get(key).parent_keys)]
    order = order_of_groups(edges, group)
    assert order.index("data") < order.index("grounding") < order.index("release")
    for circle in ({"benchmark": "evaluation"}, {"sealed_data": "data"}):
        with pytest.raises(graphlib.CycleError):
            order_of_groups(edges, group | circle)


def test_rule_names_are_unique_in_a_stage():
    for stage, rules in RULES.items():
        assert len({rule.name for rule in rules}) == len(rules), stage


def test_asset_bodies_stay_small():
    """An asset is a name in the graph; what it does belongs to ml/. 15 lines are the limit."""
    tree = ast.parse(Path(ROOT / "orchestration" / "assets.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.body[0].lineno < 15, node.name
