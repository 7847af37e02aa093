"""A part of the graph, as people run it, in one process that notes every name that a pickle asks
for, and every address that something listens on.

python -m tests.builders.watched <fresh root> <scored root> <report.json>
"""

import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import yaml

ASKED: list[str] = []
BOUND: list[str] = []


def note(event: str, arguments: tuple) -> None:
    if event == "pickle.find_class":
        callers = [frame.filename for frame in traceback.extract_stack(limit=12)]
        ASKED.append(f"{arguments[0]}.{arguments[1]} by {callers[-3:]}")
    elif event == "socket.bind":
        BOUND.append(repr(arguments[1]))


def config(folder: Path, **project: str) -> str:
    file = folder / "watched.run.yaml"
    file.write_text(yaml.safe_dump({"resources": {"project": {"config": project}}}))
    return str(file)


def assets(folder: Path, selection: str, **project: str) -> None:
    from dagster._cli import cli

    command = ["asset", "materialize", "--select", selection, "-m", "orchestration.definitions"]
    more = ["--partition", project["profile"], "-c", config(folder, **project)]
    cli([*command, *more], standalone_mode=False)


def predictions(root: Path) -> Iterator[list[int]]:
    import mlflow
    import numpy as np
    import pandas as pd

    from ml.images.png import encode_png

    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    segmenter = mlflow.pyfunc.load_model("models:/segmenter-ci@champion")
    yield list(segmenter.predict(picture[None]).shape)
    grounding = mlflow.pyfunc.load_model("models:/grounding-ci@champion")
    table = pd.DataFrame({"image": [encode_png(picture)], "words": [["dog"]]})
    yield [len(grounding.predict(table)["masks"][0])]


def main(fresh: str, scored: str, report: str) -> None:
    sys.addaudithook(note)
    assets(Path(fresh), "prompts", profile="ci", root=fresh)
    assets(Path(scored), "promotion", profile="ci", root=scored)
    found = {"predictions": list(predictions(Path(scored))), "pickled": ASKED, "bound": BOUND}
    Path(report).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
