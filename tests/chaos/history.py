"""What Dagster and MLflow have on record, read from their databases."""

import sqlite3
from contextlib import closing
from pathlib import Path

OVER = {"SUCCESS", "FAILURE", "CANCELED"}
MODELS = ("grounding", "segmenter")


def rows(file: Path, query: str) -> list[tuple]:
    if not file.is_file():
        return []
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as database:
        return database.execute(query).fetchall()


def runs_of(checkout: Path) -> list[str]:
    """The status of every Dagster run, oldest first."""
    file = checkout / ".dagster" / "history" / "runs.db"
    return [status for (status,) in rows(file, "select status from runs order by id")]


def wrong_runs(statuses: list[str]) -> list[str]:
    """What is wrong with a history whose last run was let alone."""
    wrong = [f"a Dagster run stays {status}" for status in statuses if status not in OVER]
    if statuses[-1:] != ["SUCCESS"] or statuses.count("SUCCESS") != 1:
        wrong.append(f"Dagster runs: expected one success, the last; got {', '.join(statuses)}")
    return wrong


def wrong_registry(database: Path) -> list[str]:
    """What is wrong with a registry in which both models were registered once."""
    wrong = []
    versions = rows(database, "select name, version, current_stage from model_versions")
    aliases = rows(database, "select name, alias, version from registered_model_aliases")
    for model in MODELS:
        found = [
            version
            for name, version, stage in versions
            if name == model and stage != "Deleted_Internal"
        ]
        if len(found) != 1:
            wrong.append(f"{len(found)} registry versions of {model}, expected one")
        for alias in ("challenger", "champion"):
            pointed = [v for name, known, v in aliases if (name, known) == (model, alias)]
            if pointed != found[:1]:
                wrong.append(f"{alias} of {model} is {pointed}, expected {found[:1]}")
    runs = rows(database, "select name, status from runs where lifecycle_stage = 'active'")
    if len(runs) != len(MODELS):
        wrong.append(f"{len(runs)} MLflow runs, expected one a model")
    wrong += [
        f"MLflow run {name!r} stays {status}" for name, status in runs if status != "FINISHED"
    ]
    logged = rows(
        database, "select name, status from logged_models where lifecycle_stage = 'active'"
    )
    if len(logged) != len(MODELS):
        wrong.append(f"{len(logged)} logged models in MLflow, expected one a model")
    return wrong
