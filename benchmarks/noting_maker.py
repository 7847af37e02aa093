"""Of `benchmarks.two_nodes`: a maker of pictures that notes where it is.

A module of its own, since Ray sends a class by its module's name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ml.pipeline.stages import images


class NotingMaker(images.ShardMaker):
    """Notes on which node it is whenever it begins and ends a shard."""

    def __init__(self, notes: Path, *arguments: Any):
        super().__init__(*arguments)
        self.notes = notes

    def __call__(self, prompts: Sequence[dict[str, Any]]) -> pd.DataFrame:
        self._note(prompts[0]["key"], "begun")
        rows = super().__call__(prompts)
        self._note(prompts[0]["key"], "made")
        return rows

    def _note(self, key: str, what: str) -> None:
        import ray

        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "-"
        with self.notes.open("a") as file:
            file.write(f"{node} {key} {what}\n")
