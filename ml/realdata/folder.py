"""A user's own labelled folder.

    images/    photographs (.jpg, .jpeg, .png), any sizes
    masks/     one PNG a photograph, of the same stem and size
    classes.txt   one class a line; the first line is label 1 (a first line `background` is 0)
    palette.txt   instead, for masks in colours: `128 0 0 forklift` a line; black is background,
                  white is ignored unless listed
    test.txt, train.txt   stems, optional: which pictures are the benchmark, which train the bound

With classes.txt masks hold labels as grey levels or palette indices, 255 ignored. Without
train.txt there is no training part, hence no real bound; without test.txt every picture that is
not in train.txt is a test picture.
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from ml.pictures import IGNORED
from ml.realdata.shared import NoSuchPart, open_mask, read_list, require_labels

KINDS = (".jpg", ".jpeg", ".png")


def stem_of_line(line: str) -> str:
    """The key of "hall 1" or "hall 1.jpg"; names may hold spaces and dots."""
    return Path(line).stem if line.lower().endswith(KINDS) else line


class OwnFolder:
    """A part of a user's folder; see shared.LabelledPhotos for what it offers."""

    official = None
    hint = "put photographs into images/ and a mask of the same stem for each into masks/"

    def __init__(self, root: Path, part: str):
        self.root, self.part = Path(root), part
        self.title = f"{self.root.name} {part}"
        for name in ("images", "masks"):
            if not (self.root / name).is_dir():
                raise ValueError(f"{self.root} is not a labelled folder: no {name}/ in it; "
                                 f"{self.hint}, and write classes.txt")
        if part == "train" and not (self.root / "train.txt").is_file():
            raise NoSuchPart("the folder has no train.txt: nothing to train a real bound on")
        self.colours: dict[tuple[int, ...], int] = {}
        self.names = self._classes()

    def _classes(self) -> dict[int, str]:
        classes, palette = self.root / "classes.txt", self.root / "palette.txt"
        if classes.is_file() == palette.is_file():
            raise ValueError(f"{self.root}: expected either classes.txt (one class a line) or "
                             "palette.txt (`128 0 0 forklift` a line), found "
                             f"{'both' if classes.is_file() else 'neither'}; without it nobody "
                             "knows what the labels mean")
        file = classes if classes.is_file() else palette
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        names = [line for line in lines if line and not line.startswith("#")]
        if file == palette:
            names = [self._coloured(file, line, i + 1) for i, line in enumerate(names)]
        elif names[:1] == ["background"]:
            names = names[1:]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if not names or repeated or len(names) > 254:
            raise ValueError(f"{file}: expected 1 to 254 classes, each once; got {len(names)}, "
                             f"repeated: {repeated}")
        return dict(enumerate(names, start=1))

    def _coloured(self, file: Path, line: str, label: int) -> str:
        parts = line.split(maxsplit=3)
        if len(parts) < 4 or not all(p.isdecimal() and int(p) < 256 for p in parts[:3]):
            raise ValueError(f"{file}: expected `red green blue class` (0..255), got {line!r}")
        colour = tuple(int(p) for p in parts[:3])
        if colour == (0, 0, 0) or colour in self.colours:
            raise ValueError(f"{file}: colour {colour} of {parts[3]!r} is "
                             f"{'background' if not any(colour) else 'listed twice'}; give every "
                             "class a colour of its own")
        self.colours[colour] = label
        return parts[3]

    @cached_property
    def _photos(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in sorted((self.root / "images").iterdir()):
            if path.suffix.lower() not in KINDS:
                continue
            if path.stem in found:
                raise ValueError(f"{found[path.stem]} and {path} share the stem {path.stem!r}: "
                                 "expected one photograph a mask; rename one")
            found[path.stem] = path
        return found

    def _list(self, name: str) -> list[str] | None:
        file = self.root / f"{name}.txt"
        return read_list(file, self.title, stem_of_line) if file.is_file() else None

    @cached_property
    def keys(self) -> tuple[str, ...]:
        test, train = self._list("test"), self._list("train") or []
        if both := sorted(set(test or []) & set(train)):
            raise ValueError(f"{self.root}: {len(both)} pictures are in test.txt and train.txt, "
                             f"first {both[0]!r}; a picture is for one of them")
        if self.part == "train":
            return tuple(sorted(train))
        return tuple(sorted(set(self._photos) - set(train) if test is None else test))

    def photo(self, key: str) -> Path:
        return self._photos.get(key, self.root / "images" / f"{key}.jpg")

    def mask(self, key: str) -> Path:
        """The file of a picture's labels."""
        return self.root / "masks" / f"{key}.png"

    def label_size(self, key: str) -> tuple[int, int]:
        return self.truth(key).shape

    def truth(self, key: str) -> np.ndarray:
        path = self.mask(key)
        image = open_mask(path)
        if self.colours:
            return self._by_colour(path, np.array(image.convert("RGB")))
        if image.mode not in ("L", "P", "1"):
            raise ValueError(f"{path}: expected labels as grey levels or palette indices (mode L "
                             f"or P), got mode {image.mode}; export it as an indexed PNG, or list "
                             "its colours in palette.txt instead of classes.txt")
        return require_labels(path, np.array(image).astype(np.uint8), self.names)

    def _by_colour(self, path: Path, pixels: np.ndarray) -> np.ndarray:
        table = {(255, 255, 255): IGNORED, (0, 0, 0): 0} | self.colours
        packed = pixels.astype(np.int64) @ [65536, 256, 1]
        values, inverse = np.unique(packed, return_inverse=True)
        colours = [(int(v) >> 16, int(v) >> 8 & 255, int(v) & 255) for v in values]
        if strange := [colour for colour in colours if colour not in table]:
            raise ValueError(f"{path} holds the colours {strange[:4]} that palette.txt does not "
                             "list; expected its colours, black and white only. Was the mask "
                             "saved as JPEG, or with soft edges?")
        labels = np.array([table[colour] for colour in colours], np.uint8)
        return labels[inverse].reshape(pixels.shape[:2])

    def label_files(self) -> list[Path]:
        lists = [self.root / f"{name}.txt" for name in ("classes", "palette", "test", "train")]
        return [path for path in lists if path.is_file()] + [self.mask(key) for key in self.keys]

    def photo_files(self) -> list[Path]:
        return [self.photo(key) for key in self.keys]
