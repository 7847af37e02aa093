"""A stage's folder and its successor, which replaces it when complete.

A stage writes in `data/<profile>/.making/<stage>`; when that is whole, it is renamed to
`data/<profile>/<stage>`. Until then the finished folder stands, whatever the new settings do, and
after a kill the next run continues with what was made. Only what we made is deleted: a folder that
carries neither a manifest nor a note of ours is refused, and a file in ours that we did not make
stays there, or goes to `data/<profile>/.strays` where it would be read as part of the data.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.errors import ManifestError
from ml.store.files import (
    Damaged,
    aside_of,
    atomic,
    read_json,
    read_note,
    remove,
    replace_folder,
    say,
    settle,
    sha256_json,
    sync,
    walk,
    write_json,
)
from ml.store.manifest import (
    HALF,
    NAME,
    PROGRESS,
    FileEntry,
    Manifest,
    Recipe,
    read_manifest,
    strays,
    write_manifest,
)
from ml.store.sidecars import read_sidecar, shard_files, shards_of, sidecar

MAKING, STRAYS, STATE = ".making", ".strays", ".state"
MADE = "made.json"
"""In the state of a folder: that we made it, and which files. Written before it takes its place."""
MADE_NOTE = {"stage": str, "digest": str, "files": list}
RECIPE_NOTE = {"stage": str, "inputs": dict}
_MANIFEST = {"schema": int, "stage": str, "files": dict}
OLD_NOTE = "recipe.json"
"""Earlier versions wrote folders in their final place; their state had this file instead."""

NOTES = ("timing.json", MADE, "quality.json", "audit.json", OLD_NOTE)
"""All that a stage's state holds, whoever wrote it; the next making replaces it."""


@dataclass(frozen=True)
class Successor:
    """The places of one stage in `data/<profile>`. Everything but `check` and `waits` changes
    files and is for the holder of the stage's lock."""

    data: Path
    stage: str

    @property
    def folder(self) -> Path:
        return self.data / self.stage

    @property
    def state(self) -> Path:
        return self.data / STATE / self.stage

    @property
    def new(self) -> Path:
        """Where the stage writes."""
        return self.data / MAKING / self.stage

    @property
    def note(self) -> Path:
        """The recipe of what lies in `new`."""
        return self.data / MAKING / f"{self.stage}.json"

    @property
    def new_state(self) -> Path:
        """There once `new` is whole."""
        return self.data / MAKING / f"{self.stage}.state"

    def check(self) -> None:
        """Raises ManifestError when what stands in the stage's place was not made by us."""
        aside = aside_of(self.folder)  # is deleted where the folder is in its place
        for folder, ours in ((self.folder, self._own_files), (aside, lambda: self._named(aside))):
            if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
                continue
            if not folder.is_dir() or ours() is None:
                raise ManifestError(
                    f"{folder} is in the way: the stage {self.stage!r} writes a folder of this "
                    "name, and what stands there was not made by it (no manifest of ours). Nothing "
                    "of it was touched: move it elsewhere, or give the profile another name"
                )

    def waits(self) -> bool:
        """Whether something is left half-done."""
        return self.note.exists()

    def start(self, recipe: Recipe, afresh: bool) -> None:
        """Prepares `new` for a recipe; what the same recipe left there, or in the finished folder,
        is kept unless `afresh`."""
        self._check_places()
        self._check_folders()
        waiting = read_note(self.note, RECIPE_NOTE)
        if self.new.exists() and not self.note.exists():
            raise ManifestError(
                f"{self.new} is in the way: it has no note {self.note.name} of "
                "ours beside it. Move it elsewhere"
            )
        if afresh or waiting is None or sha256_json(waiting) != sha256_json(recipe):
            remove(self.new)
        remove(self.new_state)
        write_json(self.note, recipe)
        self.new.mkdir(parents=True, exist_ok=True)
        for left in self.new.rglob(".*.tmp"):
            remove(left)
        if not afresh and self.folder.is_dir():
            self._take_over(sha256_json(recipe))

    def _check_places(self) -> None:
        """Raises ManifestError for a folder of somebody else at the place where the stage
        writes."""
        if self.folder.is_symlink():
            raise ManifestError(
                f"{self.folder} is a symbolic link, which a new folder can't take "
                "the place of: move the data here, or link the whole of "
                f"{self.data.parent} to where there is room"
            )
        folders = [self.data / MAKING, self.data / STATE, self.new, self.new_state, self.state]
        wrong = [
            path for path in folders if path.is_symlink() or (path.exists() and not path.is_dir())
        ]
        if self.note.is_symlink() or self.note.is_dir():
            wrong.append(self.note)
        if self.new_state.exists() and not (self.new_state / MADE).is_file():
            wrong.append(self.new_state)
        wrong += [
            path
            for path in sorted(self.state.glob("*"))
            if not (path.name in NOTES or HALF.fullmatch(path.name))
        ]
        if wrong:
            raise ManifestError(
                f"{wrong[0]} is in the way: it was not made by the stage {self.stage!r}, which "
                f"writes there. Move it elsewhere (to keep data on another disk, link the whole of "
                f"{self.data} there)"
            )

    def _check_folders(self) -> None:
        """Raises the OSError of a folder in the finished one that this user can't open: what others
        keep in it would not be seen, and be deleted with the old folder."""
        if self.folder.is_dir():
            for _ in walk(self.folder):
                pass

    def forget(self, recipe: Recipe) -> None:
        """Removes an unfinished folder whose recipe is finished already."""
        waiting = read_note(self.note, RECIPE_NOTE)
        if waiting is not None and sha256_json(waiting) == sha256_json(recipe):
            remove(self.new)
            remove(self.new_state)
            self.note.unlink()

    def _take_over(self, recipe: str) -> None:
        """Links the finished folder's shards of the same recipe into `new`, so that only what is
        missing or damaged is made again."""
        for shard in shards_of(self.folder, recipe):
            if not (self.new / shard.name).exists():
                for path in (shard, sidecar(shard)):
                    _link(path, self.new / path.name)

    def finish(self, manifest: Manifest, timing: dict[str, Any]) -> None:
        """Gives `new` its manifest and puts it into the place of the finished folder.

        The manifest is last: from then on a run that was killed is completed by `settle`, and until
        then a training has its checkpoint.
        """
        with atomic(self.new_state) as temporary:
            temporary.mkdir()
            write_state(temporary, manifest, timing)
        write_manifest(self.new, manifest)
        self._replace()

    def _replace(self) -> None:
        if self.new.exists():
            self.check()
            remove(self.new / PROGRESS)
            sync(self.new)
            moved = self._move_strays()
            replace_folder(self.new, self.folder)
            self._bring_back(moved)
        replace_folder(self.new_state, self.state)
        self.note.unlink(missing_ok=True)

    def settle(self) -> None:
        """Completes what a kill interrupted between the last byte and the last rename."""
        settle(self.folder)
        settle(self.state)
        made = read_note(self.new_state / MADE, MADE_NOTE)
        if made is None:
            return
        whole = self.new if self.new.exists() else self.folder
        try:
            digest = read_manifest(whole).digest
        except ManifestError:
            return
        if digest == made["digest"]:
            self._replace()

    def _named(self, folder: Path) -> set[str] | None:
        """The files that a folder's manifest of this stage names; None without one."""
        try:
            named = read_json(folder / NAME, _MANIFEST)  # of any schema, also an edited one
        except Damaged:
            return None
        return set(named["files"]) if named is not None and named["stage"] == self.stage else None

    def _own_files(self) -> set[str] | None:
        """The files in the finished folder that we made; None when it carries no mark of ours."""
        if (named := self._named(self.folder)) is not None:
            return named
        made = read_note(self.state / MADE, MADE_NOTE)
        if made is not None and made["stage"] == self.stage:
            return set(made["files"])
        old = read_note(self.state / OLD_NOTE, RECIPE_NOTE)
        if old is not None and old["stage"] == self.stage:
            return {path.name for path in shard_files(self.folder) if sidecar(path).is_file()} | {
                "metrics.json"
            }
        return None

    def _move_strays(self) -> dict[str, Path]:
        """Moves what others put into the finished folder aside, before that is replaced: where to,
        by name."""
        self._check_folders()
        moved = {}
        for name in strays(self.folder, self._own_files() or ()):
            target = self.data / STRAYS / self.stage / name
            number = 0
            while os.path.lexists(target):
                number += 1
                target = target.with_name(f"{number}-{Path(name).name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(self.folder / name, target)
            moved[name] = target
        return moved

    def _bring_back(self, moved: dict[str, Path]) -> None:
        """Moves strays into the new folder, except those that would be read as part of it."""
        kinds = {path.suffix for path in self.folder.rglob("*") if path.is_file()}
        for name, path in moved.items():
            place = self.folder / name
            if place.suffix in kinds or os.path.lexists(place):
                say(
                    f"{place} was not made by the stage {self.stage!r}, whose folder is replaced: "
                    f"moved to {path}"
                )
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                os.rename(path, place)


def write_state(folder: Path, manifest: Manifest, timing: dict[str, Any]) -> None:
    """Writes the notes about a stage's folder that is whole but for its manifest."""
    write_json(folder / "timing.json", timing)
    made = {
        "stage": manifest.stage,
        "digest": manifest.digest,
        "files": sorted(manifest.files),
    }
    write_json(folder / MADE, made)


def _link(path: Path, target: Path) -> None:
    """A hard link to a file that is never written in place; a copy where links are impossible."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def check_shards(folder: Path, recipe: str, files: dict[str, FileEntry]) -> None:
    """Raises ManifestError unless every shard of a folder is as `write_shards` left it for this
    recipe. files: what its manifest will say."""
    for path in shard_files(folder):
        note, found = read_sidecar(path), files[path.name]
        if note != {"recipe": recipe, "sha256": found["sha256"], "rows": found.get("rows")}:
            raise ManifestError(
                f"{path} is not of this run: its sidecar {sidecar(path).name} says "
                f"{note}. Did another run write there? Run the stage again"
            )
