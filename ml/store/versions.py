"""A stage's folder on an object store and the version that replaces it: as `ml.store.successor`,
where nothing can be renamed.

A stage writes under the number of its lock; when that is whole, a pointer to it is created, and the
version before is deleted. After a kill the next run takes a higher number, forbids the pointer of
the one before, and has the store copy what that has made. Notes about a version (`timing.json`, the
checks' verdict) lie beside its files and go with them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.errors import ManifestError, WorkspaceBusy
from ml.store import objects
from ml.store.files import read_note, sha256_json, write_json
from ml.store.leases import Lease
from ml.store.manifest import NAME, PROGRESS, Manifest, Recipe, read_manifest, write_manifest
from ml.store.shelf import Shelf, clear, look, version_in
from ml.store.sidecars import shards_of, sidecar
from ml.store.successor import MADE, MADE_NOTE, RECIPE_NOTE, write_state

NOTE, STATE = "recipe.json", "state"


@dataclass(frozen=True)
class Version:
    """The versions of one stage in an object store's `data/<profile>`. Everything but `check` and
    `waits` changes objects and is for the holder of the stage's lock."""

    data: Path
    stage: str
    lock: Lease

    @property
    def place(self) -> Path:
        return self.data / self.stage

    @property
    def number(self) -> int:
        """Of the version that may be written. Raises WorkspaceBusy when the lock is lost."""
        if self.lock.number is None:
            self.lock.check()
        return self.lock.number or 0

    @property
    def new(self) -> Path:
        """Where the stage writes."""
        return self._files(self.number)

    def _files(self, number: int) -> Path:
        return version_in(self.place, number) / self.stage

    def check(self) -> None:
        """Raises ManifestError when something stands in the stage's place that was not made by
        us."""
        check_place(self.data, self.stage)

    def waits(self) -> bool:
        """Whether something is left half-done."""
        shelf = look(self.place)
        return any(number != shelf.current for number in shelf.versions)

    def start(self, recipe: Recipe, afresh: bool) -> None:
        """Prepares `new` for a recipe; what the same recipe left in a half-made version, or in the
        finished one, is copied there unless `afresh`."""
        shelf = look(self.place)
        write_json(version_in(self.place, self.number) / NOTE, recipe)
        for number in self._half_made(shelf):
            if not shelf.void(number):
                continue  # finished after all
            if not afresh and self._recipe(number) == sha256_json(recipe):
                self._bring(number, objects.below(self._files(number)))
            objects.delete(version_in(self.place, number))
        current = look(self.place).current
        if not afresh and current is not None:
            self._take_over(current, sha256_json(recipe))

    def _half_made(self, shelf: Shelf) -> list[int]:
        """Versions that nothing points at, the latest first."""
        current = shelf.current or 0
        return sorted((n for n in shelf.versions if current < n < self.number), reverse=True)

    def _recipe(self, number: int) -> str:
        note = read_note(version_in(self.place, number) / NOTE, RECIPE_NOTE)
        return "" if note is None else sha256_json(note)

    def _take_over(self, current: int, recipe: str) -> None:
        """Copies the finished version's shards of the same recipe, so that only what is missing or
        damaged is made again."""
        own = list(shards_of(self._files(current), recipe))
        self._bring(current, [*own, *map(sidecar, own)])

    def _bring(self, number: int, files: list[Path]) -> None:
        """Copies files of another version that this one does not have yet."""
        old = self._files(number)
        there = {file.relative_to(self.new).as_posix() for file in objects.below(self.new)}
        missing = [file for file in files if file.relative_to(old).as_posix() not in there]
        objects.copy(missing, old, self.new)

    def forget(self, recipe: Recipe) -> None:
        """Removes a half-made version whose recipe is finished already."""
        shelf = look(self.place)
        for number in self._half_made(shelf):
            if self._recipe(number) == sha256_json(recipe) and shelf.void(number):
                objects.delete(version_in(self.place, number))

    def finish(self, manifest: Manifest, timing: dict[str, Any]) -> None:
        """Gives `new` its manifest, last, and points at it. Raises WorkspaceBusy, and changes
        nothing, when another run has taken over."""
        shelf = look(self.place)
        write_state(version_in(self.place, self.number) / STATE, manifest, timing)
        write_manifest(self.new, manifest)
        self.lock.check()
        if not shelf.point(self.number):
            raise WorkspaceBusy(
                f"{self.place}: another run has taken over while this one did not answer, and "
                "nothing of it was changed. Wait for that one"
            )
        self.lock.check()
        objects.delete(self.new / PROGRESS)
        clear(shelf, self.number, self.number)

    def settle(self) -> None:
        """Completes what a kill interrupted between the last byte and the last deletion."""
        shelf = look(self.place)
        for number in self._half_made(shelf):
            made = read_note(version_in(self.place, number) / STATE / MADE, MADE_NOTE)
            if made is not None and self._digest(number) == made["digest"]:
                shelf.point(number)
                objects.delete(self._files(number) / PROGRESS)
                break
        if (current := look(self.place).current) is not None:
            clear(shelf, current, self.number)

    def _digest(self, number: int) -> str:
        try:
            return read_manifest(self._files(number), verify=False).digest
        except ManifestError:
            return ""


def check_place(data: Path, stage: str) -> None:
    """Raises ManifestError for objects of others at a stage's place."""
    if strays := look(data / stage).strays:
        raise ManifestError(
            f"{data / stage / strays[0]} is in the way: the stage {stage!r} keeps numbered "
            f"versions there, {NAME} and shards within them, and this was not made by it (a copy "
            "of a local workspace has another layout). Nothing of it was touched: move it elsewhere"
        )
