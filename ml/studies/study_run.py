"""A run of the studies: where it keeps what it makes, each thing made once.

Everything lies below `data/paper[-quick]/`: `pictures/<set>` in shards, `models/<name>`,
`raw/<name>.parquet`. A thing is in place when the recipe beside it is that of what would be made,
so that a run that was stopped goes on, and a changed setting makes anew what depends on it.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.profile import ROOT, load_params
from ml.settings.sections import DiffusionParams
from ml.store.files import atomic, read_note, say, sha256_json, write_json
from ml.studies.sizes import SHARED, SIZES, Size

VERSION = 2
"""Raised when the same settings give other results."""
TRANSFORMER = "micro-dit"
"""The profile whose diffusion model the study `backbones` holds against the run's own."""


@dataclass(frozen=True)
class StudyRun:
    """Size and folder of a run. Small, so that it can be sent to processes."""

    size: Size
    root: Path = ROOT
    workers: int = 1
    backbone: str = ""
    """A profile whose diffusion model takes the place of the run's own, below its folder."""

    @cached_property
    def params(self) -> Params:
        """The profile `paper`, or `paper-quick`; of another backbone the model, its scheduler and
        the timesteps of its contrast, in as many denoising steps."""
        own = load_params(self.profile)
        if not self.backbone:
            return own
        other = load_params(self.backbone)
        return replace(
            own,
            diffusion=replace(
                other.diffusion, steps=own.diffusion.steps, dtype=own.diffusion.dtype
            ),
            grounding=replace(own.grounding, evidence_timesteps=other.grounding.evidence_timesteps),
        )

    @property
    def profile(self) -> str:
        return "paper" if self.size.name == "full" else f"paper-{self.size.name}"

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root, self.profile)

    @property
    def diffusion(self) -> DiffusionParams:
        """Of the profile, with `model` as the workspace finds it."""
        return self.workspace.located(self.params.diffusion)

    @property
    def folder(self) -> Path:
        return self.workspace.data / self.backbone

    def recipe(self, **parts: object) -> str:
        """Digest of what a thing is made from: its own parts and what everything depends on."""
        common = {name: self.params.section(name) for name in ("diffusion", "detector", "triplets")}
        return sha256_json({"version": VERSION, "model": self._model} | common | parts)

    def counts(self, *names: str) -> dict[str, int]:
        """Some counts of the size, for a recipe: those that all trainings depend on, and these."""
        return {name: getattr(self.size, name) for name in (*SHARED, *names)}

    @cached_property
    def _model(self) -> str:
        """Digest of the diffusion model and the detector."""
        return sha256_json(
            [
                self.workspace.digest(self.params, place)
                for place in ("diffusion.model", "detector.model")
            ]
        )

    def in_place(self, path: Path, recipe: str) -> bool:
        """Whether a file or folder is there and was made by this recipe."""
        return path.exists() and self.signed(path) == recipe

    def signed(self, path: Path) -> str | None:
        """The recipe that a file or folder was made by; None for what is not finished."""
        return read_note(_note(path), str)

    def sign(self, path: Path, recipe: str) -> None:
        """Marks a file or folder as finished: the last step of making it."""
        write_json(_note(path), recipe)

    @contextmanager
    def making(self, path: Path, recipe: str) -> Iterator[None]:
        """Signs what the block makes or replaces. An earlier recipe goes first: after a kill it
        would stand beside what another one made."""
        if self.signed(path) != recipe:
            _note(path).unlink(missing_ok=True)
        yield
        self.sign(path, recipe)

    def table_path(self, name: str) -> Path:
        return self.folder / "raw" / f"{name}.parquet"

    def table(self, name: str, recipe: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """`raw/<name>.parquet`, made if it is not in place."""
        path = self.table_path(name)
        if not self.in_place(path, recipe):
            frame = make()
            with self.making(path, recipe), atomic(path) as temporary:
                frame.to_parquet(temporary, index=False, compression="zstd")
        return pd.read_parquet(path)


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.recipe.json")


def open_run(size: str, root: Path = ROOT, workers: int | None = None) -> StudyRun:
    """The run of a size, "full" or "quick". workers: one a core by default, one without Ray.

    Raises ValueError for an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}: expected one of {sorted(SIZES)}")
    return StudyRun(SIZES[size], Path(root), workers or _default_workers())


def _default_workers() -> int:
    """One a core; without Ray one, with a word about it."""
    cores = len(os.sched_getaffinity(0))
    if cores > 1 and importlib.util.find_spec("ray") is None:
        say(
            f"one worker on {cores} cores: more need Ray, which is not installed "
            "(pip install '.[ray]')"
        )
        return 1
    return cores
