"""A user's own pictures as WebDataset shards: tar files with the members of a sample side by side.

train-000000.tar    x.jpg, x.label.png (or x.mask.png, x.seg.png), x.json
classes.txt    one class a line, line n being label n; else the samples' JSON names them:
               {"classes": {"1": "forklift"}}
"""

import json
import tarfile
from functools import cached_property
from pathlib import Path
from typing import Any

from ml.datasets.class_lists import read_classes
from ml.datasets.listing import PHOTO_SUFFIXES, is_junk
from ml.datasets.own_splits import of_part, split_of
from ml.datasets.packed import Content, PackedFiles, numbered, require_whole

MAPS = ("label.png", "mask.png", "seg.png")
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
PACKED_STARTS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""First bytes of gzip, bzip2, xz and Zstandard."""
END, BLOCK = 1024, 1 << 20
"""Zeros that end a tar file, at least; bytes that are looked at together."""
Member = tuple[Path, int, int]
"""File, first byte and number of bytes of a member."""


def tar_files(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*.tar") if not is_junk(path))


class OwnShards(PackedFiles):
    """A part of such a folder; see `protocol.LabelledPhotos` for what it offers."""

    hint = "write x.jpg and x.label.png of each sample into the tar files"

    def __init__(self, root: Path, part: str):
        super().__init__(root, part)
        packed = [file for file in self.root.iterdir() if file.name.lower().endswith(PACKED)]
        if packed := [file for file in packed if not is_junk(file)]:
            raise ValueError(_compressed(min(packed)))
        found = [(split_of(path.stem), path) for path in tar_files(self.root)]
        if not found:
            raise ValueError(f"{self.root}: no tar file in it")
        self.files = of_part(found, part, self.title)
        require_whole(self.files)

    @cached_property
    def _samples(self) -> dict[str, dict[str, Member]]:
        """Key -> members by what stands after the first dot of their names."""
        samples: dict[str, dict[str, Member]] = {}
        for path in self.files:
            for member in _members(path):
                if member.isdir() or is_junk(Path(member.name)):
                    continue
                if not member.isfile():
                    raise ValueError(
                        f"{path}: {member.name} is a link or a device; expected files. Write the "
                        "file itself into the tar (tar --dereference --hard-dereference)"
                    )
                folder, _, name = member.name.rpartition("/")
                stem, _, kind = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                place = (path, member.offset_data, member.size)
                if samples.setdefault(key, {}).setdefault(kind.lower(), place) != place:
                    raise ValueError(f"{path}: {member.name} is there twice; a key is one sample's")
        return samples

    @cached_property
    def names(self) -> dict[int, str]:  # type: ignore[override]
        """label -> class."""
        if files := self.name_files():
            return read_classes(files[0])
        names: dict[int, object] = {}
        for key, members in self._samples.items():
            if "json" not in members:
                continue
            classes = _object(self._bytes(members["json"]), key).get("classes")
            for label, name in classes.items() if isinstance(classes, dict) else ():
                if not label.isdecimal():
                    raise ValueError(
                        f"{self.place(key)}, {key}: classes has {label!r:.40}; expected labels, as "
                        'in {"classes": {"1": "forklift"}}'
                    )
                if names.setdefault(int(label), name) != name:
                    raise ValueError(
                        f"{self.place(key)}, {key}: label {label} is {name!r} and "
                        f"{names[int(label)]!r}; expected one class"
                    )
        if not names:
            raise ValueError(
                f"{self.title}: nothing names its classes: expected classes.txt in {self.root}, or "
                '{"classes": {"1": "forklift"}} in the samples\' JSON'
            )
        return numbered(dict(sorted(names.items())), self.title)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        for key, members in self._samples.items():
            photo, label = _kinds(members)
            if photo is None or label is None:
                raise ValueError(
                    f"{self.place(key)}, {key}: it has {', '.join(sorted(members))}; expected a "
                    f"picture and a label map ({', '.join(MAPS)})"
                )
        return tuple(sorted(self._samples))

    def place(self, key: str) -> Path:
        return next(iter(self._samples[key].values()))[0]

    def content(self, key: str, what: Content) -> bytes:
        members = self._samples[key]
        photo, label = _kinds(members)
        return self._bytes(members[str(photo if what == "picture" else label)])

    @staticmethod
    def _bytes(member: Member) -> bytes:
        path, start, size = member
        with path.open("rb") as stream:
            stream.seek(start)
            return stream.read(size)

    def name_files(self) -> list[Path]:
        return [path for path in [self.root / "classes.txt"] if path.is_file()]


def _members(path: Path) -> list[tarfile.TarInfo]:
    """Everything in a tar file. ValueError for one that is compressed, damaged or cut."""
    with path.open("rb") as stream:
        if stream.read(8).startswith(PACKED_STARTS):
            raise ValueError(_compressed(path))
    try:
        with tarfile.open(path, "r:") as tar:
            members = list(tar)
            end = tar.offset
    except (tarfile.TarError, ValueError, OverflowError) as error:  # the latter of odd headers
        raise ValueError(f"{path} is no whole tar file ({error}); get it again") from error
    _require_end(path, end)
    return members


def _require_end(path: Path, place: int) -> None:
    """Refuses a file in which anything but zeros follows the last member that was found: after the
    first one, `tarfile` takes a header that it cannot read for the end."""
    zeros = 0
    with path.open("rb") as stream:
        stream.seek(place)
        while block := stream.read(BLOCK):
            if block.count(0) != len(block):
                raise ValueError(
                    f"{path} is damaged: after byte {place:,} comes neither a member nor the end; "
                    "expected zeros there until the file ends. Get it again, or write it anew"
                )
            zeros += len(block)
    if zeros < END:
        raise ValueError(
            f"{path} is cut: after its last whole member, at byte {place:,}, come {zeros} zeros; "
            f"expected {END} or more, which end a tar file. Get it again, or write it anew"
        )


def _compressed(path: Path) -> str:
    return (
        f"{path} is compressed; expected a plain .tar, in which any picture is found at once. "
        "Unpack it (gunzip, bunzip2, unxz or unzstd) and keep the .tar alone"
    )


def _kinds(members: dict[str, Member]) -> tuple[str | None, str | None]:
    """Which members are the picture and the label map."""
    photo = next((kind for kind in members if f".{kind}" in PHOTO_SUFFIXES), None)
    return photo, next((kind for kind in MAPS if kind in members), None)


def _object(data: bytes, key: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{key}.json is no JSON ({error})") from error
    return value if isinstance(value, dict) else {}
