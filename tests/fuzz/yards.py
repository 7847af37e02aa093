"""A sound labelled folder, and what may happen to it."""

import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

TURNS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
"""EXIF's table: what is shown of what is stored."""
CLASSES = ("forklift", "pallet")
"""Of classes.txt, in its order; the vocabulary lists them by alphabet, after `dog`."""


@dataclass
class Yard:
    """A sound folder, as it is built before something happens to it."""

    root: Path
    photos: dict[str, np.ndarray] = field(default_factory=dict)  # uint8 (H,W,3) by key
    masks: dict[str, np.ndarray] = field(default_factory=dict)  # labels 0, 1, 2, 255

    @classmethod
    def build(cls, root: Path, seed: int) -> "Yard":
        rng, yard = np.random.default_rng(seed), cls(root)
        (root / "images").mkdir(parents=True)
        (root / "masks").mkdir()
        for i in range(3):
            height, width = (int(n) for n in rng.integers(24, 60, 2))
            mask = np.zeros((height, width), np.uint8)
            mask[2 : height // 2, 2 : width // 2] = 1 + i % 2
            mask[height // 2 : height - 3, 3 : width // 3] = 2 - i % 2
            mask[0] = 255
            blocks = rng.integers(0, 256, (4, 5, 3), np.uint8)
            yard.photos[f"p{i}"] = np.asarray(Image.fromarray(blocks).resize((width, height)))
            yard.masks[f"p{i}"] = mask
            yard.save(f"p{i}")
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
        return yard

    def photo(self, key: str, suffix: str = ".jpg") -> Path:
        return self.root / "images" / f"{key}{suffix}"

    def mask(self, key: str, suffix: str = ".png") -> Path:
        return self.root / "masks" / f"{key}{suffix}"

    def save(self, key: str) -> None:
        Image.fromarray(self.photos[key]).save(self.photo(key))
        Image.fromarray(self.masks[key]).save(self.mask(key))


Change = Callable[[Yard, random.Random], object]


def photo_as(suffix: str, mode: str = "RGB", **how) -> Change:
    def change(yard: Yard, rng) -> None:
        for key in rng.sample(list(yard.photos), 2):
            yard.photo(key).unlink()
            image = Image.fromarray(yard.photos[key]).convert(mode)
            image.save(yard.photo(key, suffix), **how)

    return change


def turned(yard: Yard, rng) -> None:
    """A camera's flag, and labels of what a viewer shows."""
    for key in yard.photos:
        flag = rng.choice(list(TURNS))
        exif = Image.Exif()
        exif[274] = flag
        Image.fromarray(yard.photos[key]).save(yard.photo(key), exif=exif)
        yard.masks[key] = np.ascontiguousarray(TURNS[flag](yard.masks[key]))
        Image.fromarray(yard.masks[key]).save(yard.mask(key))


def turned_alone(yard: Yard, rng) -> None:
    exif = Image.Exif()
    exif[274] = rng.choice((5, 6, 7, 8))
    height, width, _ = yard.photos["p1"].shape
    pixels = yard.photos["p1"][:, : width - (height == width)]
    yard.masks["p1"] = yard.masks["p1"][:, : pixels.shape[1]]
    yard.save("p1")
    Image.fromarray(pixels).save(yard.photo("p1"), exif=exif)


def palette_mask(yard: Yard, rng) -> None:
    for key, mask in yard.masks.items():
        image = Image.fromarray(mask)
        image.putpalette(bytes(rng.randrange(256) for _ in range(768)))
        image.save(yard.mask(key))


def mask_as(
    change_pixels: Callable[[np.ndarray], np.ndarray], suffix: str = ".png", **how
) -> Change:
    def change(yard: Yard, rng) -> None:
        key = rng.choice(list(yard.masks))
        yard.mask(key).unlink()
        Image.fromarray(change_pixels(yard.masks[key])).save(yard.mask(key, suffix), **how)

    return change


def all_masks_as(change_pixels: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(yard: Yard, _) -> None:
        for key in yard.masks:
            Image.fromarray(change_pixels(yard.masks[key])).save(yard.mask(key))

    return change


def coloured(extra: str = "", colour=(7, 77, 177), listed: bool = True) -> Change:
    """Masks in colours with palette.txt."""

    def change(yard: Yard, _) -> None:
        (yard.root / "classes.txt").unlink()
        (yard.root / "palette.txt").write_text(
            "0 0 0 background\n200 0 0 forklift\n"
            + (f"{colour[0]} {colour[1]} {colour[2]} pallet\n" if listed else "9 9 9 pallet\n")
            + extra
        )
        for key, mask in yard.masks.items():
            pixels = np.zeros((*mask.shape, 3), np.uint8)
            pixels[mask == 1], pixels[mask == 2], pixels[mask == 255] = (200, 0, 0), colour, 255
            Image.fromarray(pixels).save(yard.mask(key))

    return change


def put(name: str, data: bytes | str) -> Change:
    def change(yard: Yard, _) -> None:
        (yard.root / name).write_bytes(data if isinstance(data, bytes) else data.encode())

    return change


def cut(part: str) -> Change:
    def change(yard: Yard, rng) -> None:
        key = rng.choice(list(yard.photos))
        path = yard.photo(key) if part == "photo" else yard.mask(key)
        data = path.read_bytes()
        path.write_bytes(data[: rng.randrange(len(data) * 9 // 10)])

    return change


def flipped(yard: Yard, rng) -> None:
    """One byte within the packed samples of a PNG, which its checksum covers."""
    path = yard.mask("p0")
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 4 + rng.randrange(8)] ^= 1 + rng.randrange(255)
    path.write_bytes(data)


def renamed(new: str, old: str = "p1") -> Change:
    def change(yard: Yard, _) -> None:
        yard.photo(old).rename(yard.photo(unicodedata.normalize("NFD", new)))
        yard.mask(old).rename(yard.mask(unicodedata.normalize("NFC", new)))
        yard.photos[new], yard.masks[new] = yard.photos.pop(old), yard.masks.pop(old)

    return change


def only(keys: tuple[str, ...], text: str) -> Change:
    def change(yard: Yard, _) -> None:
        (yard.root / "test.txt").write_text(text)
        yard.masks = {key: yard.masks[key] for key in keys}

    return change


def grey16(yard: Yard, _) -> None:
    levels = yard.photos["p2"][..., 0].astype(np.uint16) * 257
    yard.photo("p2").unlink()
    Image.fromarray(levels).save(yard.photo("p2", ".png"))


def pages(name: str, folder: str) -> Change:
    def change(yard: Yard, _) -> None:
        (yard.photo("p0") if folder == "images" else yard.mask("p0")).unlink()
        pages = [
            Image.fromarray(yard.masks["p0"] if folder == "masks" else yard.photos["p0"])
            for _ in "ab"
        ]
        pages[1].putpixel((0, 0), 1 if folder == "masks" else (1, 2, 3))
        pages[0].save(yard.root / folder / f"p0{name}", save_all=True, append_images=pages[1:])

    return change


def link(yard: Yard, _) -> None:
    yard.mask("p1").rename(yard.root / "elsewhere.png")
    yard.mask("p1").symlink_to(yard.root / "elsewhere.png")


def nothing(yard: Yard, _) -> None:
    for path in [*yard.root.glob("images/*"), *yard.root.glob("masks/*")]:
        path.unlink()


def binary(value: int) -> Change:
    return all_masks_as(lambda mask: np.where((mask > 0) & (mask < 255), value, 0).astype(np.uint8))
