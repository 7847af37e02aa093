"""Labelled folders: what cameras, tools and people leave in images/, masks/ and their lists."""

import random
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ml.realdata.listing import PHOTO_SUFFIXES
from tests.fuzz.harness import Case
from tests.fuzz.parts import labels, stage, write_profile, write_vocabulary

TURNS = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
         5: lambda a: a.swapaxes(0, 1), 6: lambda a: a[::-1].swapaxes(0, 1),
         7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: a[:, ::-1].swapaxes(0, 1)}
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


def _case(name: str, change: Change, sound: bool, seed: int, *names: str,
          either: bool = False) -> Case:
    truth: dict[str, np.ndarray] = {}

    def prepare(folder: Path) -> list[str]:
        yard = Yard.build(folder / "yard", seed)
        change(yard, random.Random(seed))
        truth.update(yard.masks)
        words = write_vocabulary(folder, ["dog", "person"], CLASSES)
        benchmark = {"source": "folder", "root": str(folder / "yard")}
        return stage(folder, "benchmark", write_profile(folder, vocabulary=words,
                                                        benchmark=benchmark))

    def check(folder: Path, _) -> str | None:
        made = labels(folder)
        expected = {unicodedata.normalize("NFC", key): _ours(mask) for key, mask in truth.items()}
        if made.keys() != expected.keys():
            return f"pictures {sorted(made)}, expected {sorted(expected)}"
        return next((f"{key} has other labels" for key in made
                     if not np.array_equal(made[key], expected[key])), None)

    return Case("folders", f"{name} ({seed})", sound, prepare, names=names,
                check=None if either else check, either=either)


def _ours(mask: np.ndarray) -> np.ndarray:
    """forklift is the second of dog, forklift, pallet, person; pallet the third."""
    table = np.arange(256, dtype=np.uint8)
    table[1:3] = 2, 3
    return table[mask]


def cases(rng: random.Random) -> Iterator[Case]:
    while True:
        every = [_case(name, change, True, rng.randrange(10**6)) for name, change in SOUND.items()]
        every += [_case(name, change, False, rng.randrange(10**6), *names)
                  for name, (change, *names) in NONSENSE.items()]
        every += [_case(f"noise {suffix}", _noisy(suffix), True, rng.randrange(10**6), either=True)
                  for suffix in (*PHOTO_SUFFIXES, "mask.png", "mask.tif", "mask.tiff")]
        yield from rng.sample(every, len(every))


def _noisy(suffix: str) -> Change:
    """Some bytes of a picture's file are others: a reader may see it, and may not fall."""
    def change(yard: Yard, rng) -> None:
        key = rng.choice(list(yard.photos))
        if suffix.startswith("mask"):
            yard.mask(key).unlink()
            path = yard.mask(key, suffix.removeprefix("mask"))
            Image.fromarray(yard.masks[key]).save(path)
        else:
            yard.photo(key).unlink()
            path = yard.photo(key, suffix)
            exif = Image.Exif()
            exif[274], exif[315] = 1, "x" * 9
            Image.fromarray(yard.photos[key]).save(path, **(
                {"exif": exif} if suffix in (".jpg", ".jpeg", ".png", ".webp", ".tif") else {}))
        data = bytearray(path.read_bytes())
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(min(len(data), rng.choice((64, 10**6))))] = rng.randrange(256)
        path.write_bytes(data)
    return change


def _photo_as(suffix: str, mode: str = "RGB", **how) -> Change:
    def change(yard: Yard, rng) -> None:
        for key in rng.sample(list(yard.photos), 2):
            yard.photo(key).unlink()
            image = Image.fromarray(yard.photos[key]).convert(mode)
            image.save(yard.photo(key, suffix), **how)
    return change


def _turned(yard: Yard, rng) -> None:
    """A camera's flag, and labels of what a viewer shows."""
    for key in yard.photos:
        flag = rng.choice(list(TURNS))
        exif = Image.Exif()
        exif[274] = flag
        Image.fromarray(yard.photos[key]).save(yard.photo(key), exif=exif)
        yard.masks[key] = np.ascontiguousarray(TURNS[flag](yard.masks[key]))
        Image.fromarray(yard.masks[key]).save(yard.mask(key))


def _turned_alone(yard: Yard, rng) -> None:
    exif = Image.Exif()
    exif[274] = rng.choice((5, 6, 7, 8))
    height, width, _ = yard.photos["p1"].shape
    pixels = yard.photos["p1"][:, : width - (height == width)]
    yard.masks["p1"] = yard.masks["p1"][:, : pixels.shape[1]]
    yard.save("p1")
    Image.fromarray(pixels).save(yard.photo("p1"), exif=exif)


def _palette_mask(yard: Yard, rng) -> None:
    for key, mask in yard.masks.items():
        image = Image.fromarray(mask)
        image.putpalette(bytes(rng.randrange(256) for _ in range(768)))
        image.save(yard.mask(key))


def _mask_as(change_pixels: Callable[[np.ndarray], np.ndarray], suffix: str = ".png",
             **how) -> Change:
    def change(yard: Yard, rng) -> None:
        key = rng.choice(list(yard.masks))
        yard.mask(key).unlink()
        Image.fromarray(change_pixels(yard.masks[key])).save(yard.mask(key, suffix), **how)
    return change


def _all_masks_as(change_pixels: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(yard: Yard, _) -> None:
        for key in yard.masks:
            Image.fromarray(change_pixels(yard.masks[key])).save(yard.mask(key))
    return change


def _coloured(extra: str = "", colour=(7, 77, 177), listed: bool = True) -> Change:
    """Masks in colours with palette.txt."""
    def change(yard: Yard, _) -> None:
        (yard.root / "classes.txt").unlink()
        (yard.root / "palette.txt").write_text(
            "0 0 0 background\n200 0 0 forklift\n" + (
                f"{colour[0]} {colour[1]} {colour[2]} pallet\n" if listed else "9 9 9 pallet\n")
            + extra)
        for key, mask in yard.masks.items():
            pixels = np.zeros((*mask.shape, 3), np.uint8)
            pixels[mask == 1], pixels[mask == 2], pixels[mask == 255] = (200, 0, 0), colour, 255
            Image.fromarray(pixels).save(yard.mask(key))
    return change


def _put(name: str, data: bytes | str) -> Change:
    def change(yard: Yard, _) -> None:
        (yard.root / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return change


def _cut(part: str) -> Change:
    def change(yard: Yard, rng) -> None:
        key = rng.choice(list(yard.photos))
        path = yard.photo(key) if part == "photo" else yard.mask(key)
        data = path.read_bytes()
        path.write_bytes(data[: rng.randrange(len(data) * 9 // 10)])
    return change


def _flipped(yard: Yard, rng) -> None:
    """One byte within the packed samples of a PNG, which its checksum covers."""
    path = yard.mask("p0")
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 4 + rng.randrange(8)] ^= 1 + rng.randrange(255)
    path.write_bytes(data)


def _renamed(new: str, old: str = "p1") -> Change:
    def change(yard: Yard, _) -> None:
        yard.photo(old).rename(yard.photo(unicodedata.normalize("NFD", new)))
        yard.mask(old).rename(yard.mask(unicodedata.normalize("NFC", new)))
        yard.photos[new], yard.masks[new] = yard.photos.pop(old), yard.masks.pop(old)
    return change


def _only(keys: tuple[str, ...], text: str) -> Change:
    def change(yard: Yard, _) -> None:
        (yard.root / "test.txt").write_text(text)
        yard.masks = {key: yard.masks[key] for key in keys}
    return change


def _grey16(yard: Yard, _) -> None:
    levels = yard.photos["p2"][..., 0].astype(np.uint16) * 257
    yard.photo("p2").unlink()
    Image.fromarray(levels).save(yard.photo("p2", ".png"))


def _pages(name: str, folder: str) -> Change:
    def change(yard: Yard, _) -> None:
        (yard.photo("p0") if folder == "images" else yard.mask("p0")).unlink()
        pages = [Image.fromarray(yard.masks["p0"] if folder == "masks" else yard.photos["p0"])
                 for _ in "ab"]
        pages[1].putpixel((0, 0), 1 if folder == "masks" else (1, 2, 3))
        pages[0].save(yard.root / folder / f"p0{name}", save_all=True, append_images=pages[1:])
    return change


def _link(yard: Yard, _) -> None:
    yard.mask("p1").rename(yard.root / "elsewhere.png")
    yard.mask("p1").symlink_to(yard.root / "elsewhere.png")


def _nothing(yard: Yard, _) -> None:
    for path in [*yard.root.glob("images/*"), *yard.root.glob("masks/*")]:
        path.unlink()


def _binary(value: int) -> Change:
    return _all_masks_as(lambda mask: np.where((mask > 0) & (mask < 255), value, 0).astype(
        np.uint8))


SOUND: dict[str, Change] = {
    "plain": lambda yard, rng: None,
    "PNG photographs": _photo_as(".png"), "WebP": _photo_as(".webp"), "BMP": _photo_as(".bmp"),
    "TIFF": _photo_as(".tif"), "capitals": _photo_as(".JPEG", format="JPEG"),
    "grey": _photo_as(".jpg", "L"), "CMYK": _photo_as(".jpg", "CMYK"),
    "alpha": _photo_as(".png", "RGBA"), "palette photograph": _photo_as(".gif", "P"),
    "progressive": _photo_as(".jpg", progressive=True),
    "16-bit grey": _grey16, "turned": _turned, "palette masks": _palette_mask,
    "16-bit masks": _mask_as(lambda mask: mask.astype(np.uint16)),
    "32-bit masks": _mask_as(lambda mask: mask.astype(np.int32), ".tif"),
    "TIFF masks": _mask_as(lambda mask: mask, ".tiff"),
    "packed TIFF masks": _mask_as(lambda mask: mask, ".tif", compression="tiff_lzw"),
    "colours": _coloured(), "colours, void": _coloured("255 255 255 void\n"),
    "mark and returns": _put("classes.txt", b"\xef\xbb\xbfforklift\r\npallet\r\n"),
    "background first": _put("classes.txt", "background\nforklift\npallet\n"),
    "remarks": _put("classes.txt", "# ours\nforklift\n  pallet \n\n\n"),
    "labelme's": _put("classes.txt", "__ignore__\n_background_\nforklift\npallet\n"),
    "capital names": _put("classes.txt", "Forklift\nPALLET\n"),
    "macOS": _put("images/._p0.jpg", b"\0\5\x16\7"), "Windows": _put("masks/Thumbs.db", b"\xd0"),
    "macOS's view": _put("images/.DS_Store", b"\0\0\0\1Bud1"),
    "blanks in names": _renamed("hall 1 (copy)"), "accents": _renamed("café ñ"),
    "dots": _renamed("2026.11.27"), "some": _only(("p0", "p2"), "p2.jpg\r\np0\r\n"),
    "a link": _link, "a remark beside": _put("README.txt", "mine"),
}
NONSENSE: dict[str, tuple] = {
    "255 alone": (_binary(255), "255"),
    "another label": (_all_masks_as(lambda mask: np.where(mask == 2, 3, mask).astype(np.uint8)),
                      ".png", "3"),
    "levels": (_all_masks_as(lambda mask: (mask.clip(0, 2) * 100).astype(np.uint8)), ".png"),
    "no label": (_all_masks_as(np.zeros_like), "labelled"),
    "16-bit labels too large": (_mask_as(lambda mask: mask.astype(np.uint16) + 256), ".png"),
    "negative": (_mask_as(lambda mask: -mask.astype(np.int32), ".tif"), ".tif"),
    "fractions": (_mask_as(lambda mask: mask.astype(np.float32), ".tif"), ".tif"),
    "mask in colours": (_mask_as(lambda mask: np.repeat(mask[..., None], 3, 2)), ".png"),
    "mask of another size": (_mask_as(lambda mask: mask[1:]), "pixels"),
    "mask at half size": (_mask_as(lambda mask: mask[::2, ::2]), "pixels"),
    "mask as JPEG": (_mask_as(lambda mask: mask, ".jpg"), ".jpg"),
    "mask as BMP": (_mask_as(lambda mask: mask, ".bmp"), ".bmp"),
    "JPEG called PNG": (_mask_as(lambda mask: mask, ".png", format="JPEG"), ".png"),
    "turned without its mask": (_turned_alone, "p1"),
    "photograph cut": (_cut("photo"), "images/p"), "mask cut": (_cut("mask"), "masks/p"),
    "mask flipped": (_flipped, "masks/p0"),
    "photograph empty": (_put("images/p0.jpg", b""), "p0.jpg"),
    "mask empty": (_put("masks/p0.png", b""), "p0.png"),
    "text as photograph": (_put("images/p0.jpg", "<html>Not found</html>"), "p0.jpg"),
    "a video": (_put("images/p3.mp4", b"\0\0\0 ftyp"), "p3.mp4"),
    "two of a stem": (_put("images/p0.png", b"x"), "p0"),
    "no mask": (lambda yard, _: yard.mask("p1").unlink(), "p1"),
    "no photograph": (lambda yard, _: yard.photo("p1").unlink(), "p1"),
    "a folder within": (lambda yard, _: (yard.root / "images/more").mkdir(), "more"),
    "a folder as a picture": (lambda yard, _: (yard.root / "images/p9.jpg").mkdir(), "p9.jpg"),
    "a dangling link": (lambda yard, _: (yard.root / "images/p9.jpg").symlink_to("gone"), "p9"),
    "pages": (_pages(".tif", "images"), "p0.tif"), "animated": (_pages(".gif", "images"), "p0.gif"),
    "pages of labels": (_pages(".tif", "masks"), "p0.tif"),
    "no images": (lambda yard, _: (yard.root / "images").rename(yard.root / "image"), "images/"),
    "nothing at all": (_nothing, "no picture"),
    "no classes": (lambda yard, _: (yard.root / "classes.txt").unlink(), "classes.txt"),
    "both lists": (_put("palette.txt", "1 2 3 pallet\n"), "palette.txt"),
    "classes in UTF-16": (_put("classes.txt", "forklift\npallet\n".encode("utf-16")),
                          "classes.txt"),
    "classes empty": (_put("classes.txt", "\n"), "classes.txt"),
    "numbered": (_put("classes.txt", "1 forklift\n2 pallet\n"), "classes.txt"),
    "numbered by colons": (_put("classes.txt", "1: forklift\n2: pallet\n"), "classes.txt"),
    "a gap": (_put("classes.txt", "forklift\n\npallet\n"), "line 2"),
    "twice": (_put("classes.txt", "forklift\nForklift\n"), "classes.txt"),
    "background within": (_put("classes.txt", "forklift\nbackground\npallet\n"), "line 2"),
    "void within": (_put("classes.txt", "forklift\nvoid\n"), "line 2"),
    "tabs": (_put("classes.txt", "forklift\tvehicle\npallet\tthing\n"), "line 1"),
    "JSON": (_put("classes.txt", '["forklift", "pallet"]\n'), "classes.txt"),
    "commas": (_put("classes.txt", "forklift, pallet\n"), "classes.txt"),
    "of others": (_put("classes.txt", "spoon\nfork\n"), "spoon"),
    "CVAT's": (_put("classes.txt", "# label:color_rgb:parts:actions\nforklift:9,9,9::\n"
                                   "pallet:8,8,8::\n"), "palette.txt"),
    "fewer classes": (_put("classes.txt", "forklift\n"), ".png"),
    "unlisted colours": (_coloured(listed=False), "palette.txt"),
    "palette without names": (_coloured("1 2 3\n"), "palette.txt"),
    "a colour twice": (_coloured("200 0 0 pallet\n"), "palette.txt"),
    "a colour too large": (_coloured("300 0 0 spoon\n"), "palette.txt"),
    "hexadecimal": (_coloured("#ff0000 spoon\n", ), "palette.txt"),
    "unknown stems": (_only((), "p0\np7\n"), "p7"),
    "stems twice": (_only((), "p0\np0.jpg\n"), "p0"),
    "no stems": (_only((), "\n"), "test.txt"),
    "a way out": (_only((), "../../mine/holiday\n"), "holiday"),
    "in both": (lambda yard, _: [(yard.root / f"{name}.txt").write_text("p0\n")
                                 for name in ("test", "train")], "p0"),
}
