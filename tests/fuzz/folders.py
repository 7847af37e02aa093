"""Labelled folders: what cameras, tools and people leave in images/, masks/ and their lists."""

import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.fuzz import yards
from tests.fuzz.harness import Case
from tests.fuzz.parts import labels, stage, write_profile, write_vocabulary
from tests.fuzz.yards import CLASSES, Change, Yard


def _case(
    name: str, change: Change, sound: bool, seed: int, *names: str, either: bool = False
) -> Case:
    truth: dict[str, np.ndarray] = {}

    def prepare(folder: Path) -> list[str]:
        yard = Yard.build(folder / "yard", seed)
        change(yard, random.Random(seed))
        truth.update(yard.masks)
        words = write_vocabulary(folder, ["dog", "person"], CLASSES)
        benchmark = {"source": "folder", "root": str(folder / "yard")}
        return stage(
            folder, "benchmark", write_profile(folder, vocabulary=words, benchmark=benchmark)
        )

    def check(folder: Path, _) -> str | None:
        made = labels(folder)
        expected = {unicodedata.normalize("NFC", key): _ours(mask) for key, mask in truth.items()}
        if made.keys() != expected.keys():
            return f"pictures {sorted(made)}, expected {sorted(expected)}"
        return next(
            (
                f"{key} has other labels"
                for key in made
                if not np.array_equal(made[key], expected[key])
            ),
            None,
        )

    return Case(
        "folders",
        f"{name} ({seed})",
        sound,
        prepare,
        names=names,
        check=None if either else check,
        either=either,
    )


def _ours(mask: np.ndarray) -> np.ndarray:
    """forklift is the second of dog, forklift, pallet, person; pallet the third."""
    table = np.arange(256, dtype=np.uint8)
    table[1:3] = 2, 3
    return table[mask]


def cases(rng: random.Random) -> Iterator[Case]:
    while True:
        every = [_case(name, change, True, rng.randrange(10**6)) for name, change in SOUND.items()]
        every += [
            _case(name, change, False, rng.randrange(10**6), *names)
            for name, (change, *names) in NONSENSE.items()
        ]
        yield from rng.sample(every, len(every))


SOUND: dict[str, Change] = {
    "plain": lambda yard, rng: None,
    "PNG photographs": yards.photo_as(".png"),
    "WebP": yards.photo_as(".webp"),
    "BMP": yards.photo_as(".bmp"),
    "TIFF": yards.photo_as(".tif"),
    "capitals": yards.photo_as(".JPEG", format="JPEG"),
    "grey": yards.photo_as(".jpg", "L"),
    "CMYK": yards.photo_as(".jpg", "CMYK"),
    "alpha": yards.photo_as(".png", "RGBA"),
    "palette photograph": yards.photo_as(".gif", "P"),
    "progressive": yards.photo_as(".jpg", progressive=True),
    "16-bit grey": yards.grey16,
    "turned": yards.turned,
    "palette masks": yards.palette_mask,
    "16-bit masks": yards.mask_as(lambda mask: mask.astype(np.uint16)),
    "32-bit masks": yards.mask_as(lambda mask: mask.astype(np.int32), ".tif"),
    "TIFF masks": yards.mask_as(lambda mask: mask, ".tiff"),
    "packed TIFF masks": yards.mask_as(lambda mask: mask, ".tif", compression="tiff_lzw"),
    "colours": yards.coloured(),
    "colours, void": yards.coloured("255 255 255 void\n"),
    "mark and returns": yards.put("classes.txt", b"\xef\xbb\xbfforklift\r\npallet\r\n"),
    "background first": yards.put("classes.txt", "background\nforklift\npallet\n"),
    "remarks": yards.put("classes.txt", "# ours\nforklift\n  pallet \n\n\n"),
    "labelme's": yards.put("classes.txt", "__ignore__\n_background_\nforklift\npallet\n"),
    "capital names": yards.put("classes.txt", "Forklift\nPALLET\n"),
    "macOS": yards.put("images/._p0.jpg", b"\0\5\x16\7"),
    "Windows": yards.put("masks/Thumbs.db", b"\xd0"),
    "macOS's view": yards.put("images/.DS_Store", b"\0\0\0\1Bud1"),
    "blanks in names": yards.renamed("hall 1 (copy)"),
    "accents": yards.renamed("café ñ"),
    "dots": yards.renamed("2026.11.27"),
    "some": yards.only(("p0", "p2"), "p2.jpg\r\np0\r\n"),
    "a link": yards.link,
    "a remark beside": yards.put("README.txt", "mine"),
}
NONSENSE: dict[str, tuple] = {
    "255 alone": (yards.binary(255), "255"),
    "another label": (
        yards.all_masks_as(lambda mask: np.where(mask == 2, 3, mask).astype(np.uint8)),
        ".png",
        "3",
    ),
    "levels": (yards.all_masks_as(lambda mask: (mask.clip(0, 2) * 100).astype(np.uint8)), ".png"),
    "no label": (yards.all_masks_as(np.zeros_like), "labelled"),
    "16-bit labels too large": (yards.mask_as(lambda mask: mask.astype(np.uint16) + 256), ".png"),
    "negative": (yards.mask_as(lambda mask: -mask.astype(np.int32), ".tif"), ".tif"),
    "fractions": (yards.mask_as(lambda mask: mask.astype(np.float32), ".tif"), ".tif"),
    "mask in colours": (yards.mask_as(lambda mask: np.repeat(mask[..., None], 3, 2)), ".png"),
    "mask of another size": (yards.mask_as(lambda mask: mask[1:]), "pixels"),
    "mask at half size": (yards.mask_as(lambda mask: mask[::2, ::2]), "pixels"),
    "mask as JPEG": (yards.mask_as(lambda mask: mask, ".jpg"), ".jpg"),
    "mask as BMP": (yards.mask_as(lambda mask: mask, ".bmp"), ".bmp"),
    "JPEG called PNG": (yards.mask_as(lambda mask: mask, ".png", format="JPEG"), ".png"),
    "turned without its mask": (yards.turned_alone, "p1"),
    "photograph cut": (yards.cut("photo"), "images/p"),
    "mask cut": (yards.cut("mask"), "masks/p"),
    "mask flipped": (yards.flipped, "masks/p0"),
    "photograph empty": (yards.put("images/p0.jpg", b""), "p0.jpg"),
    "mask empty": (yards.put("masks/p0.png", b""), "p0.png"),
    "text as photograph": (yards.put("images/p0.jpg", "<html>Not found</html>"), "p0.jpg"),
    "a video": (yards.put("images/p3.mp4", b"\0\0\0 ftyp"), "p3.mp4"),
    "two of a stem": (yards.put("images/p0.png", b"x"), "p0"),
    "no mask": (lambda yard, _: yard.mask("p1").unlink(), "p1"),
    "no photograph": (lambda yard, _: yard.photo("p1").unlink(), "p1"),
    "a folder within": (lambda yard, _: (yard.root / "images/more").mkdir(), "more"),
    "a folder as a picture": (lambda yard, _: (yard.root / "images/p9.jpg").mkdir(), "p9.jpg"),
    "a dangling link": (lambda yard, _: (yard.root / "images/p9.jpg").symlink_to("gone"), "p9"),
    "pages": (yards.pages(".tif", "images"), "p0.tif"),
    "animated": (yards.pages(".gif", "images"), "p0.gif"),
    "pages of labels": (yards.pages(".tif", "masks"), "p0.tif"),
    "no images": (lambda yard, _: (yard.root / "images").rename(yard.root / "image"), "images/"),
    "nothing at all": (yards.nothing, "no picture"),
    "no classes": (lambda yard, _: (yard.root / "classes.txt").unlink(), "classes.txt"),
    "both lists": (yards.put("palette.txt", "1 2 3 pallet\n"), "palette.txt"),
    "classes in UTF-16": (
        yards.put("classes.txt", "forklift\npallet\n".encode("utf-16")),
        "classes.txt",
    ),
    "classes empty": (yards.put("classes.txt", "\n"), "classes.txt"),
    "numbered": (yards.put("classes.txt", "1 forklift\n2 pallet\n"), "classes.txt"),
    "numbered by colons": (yards.put("classes.txt", "1: forklift\n2: pallet\n"), "classes.txt"),
    "a gap": (yards.put("classes.txt", "forklift\n\npallet\n"), "line 2"),
    "twice": (yards.put("classes.txt", "forklift\nForklift\n"), "classes.txt"),
    "background within": (yards.put("classes.txt", "forklift\nbackground\npallet\n"), "line 2"),
    "void within": (yards.put("classes.txt", "forklift\nvoid\n"), "line 2"),
    "tabs": (yards.put("classes.txt", "forklift\tvehicle\npallet\tthing\n"), "line 1"),
    "JSON": (yards.put("classes.txt", '["forklift", "pallet"]\n'), "classes.txt"),
    "commas": (yards.put("classes.txt", "forklift, pallet\n"), "classes.txt"),
    "of others": (yards.put("classes.txt", "spoon\nfork\n"), "spoon"),
    "CVAT's": (
        yards.put(
            "classes.txt", "# label:color_rgb:parts:actions\nforklift:9,9,9::\npallet:8,8,8::\n"
        ),
        "palette.txt",
    ),
    "fewer classes": (yards.put("classes.txt", "forklift\n"), ".png"),
    "unlisted colours": (yards.coloured(listed=False), "palette.txt"),
    "palette without names": (yards.coloured("1 2 3\n"), "palette.txt"),
    "a colour twice": (yards.coloured("200 0 0 pallet\n"), "palette.txt"),
    "a colour too large": (yards.coloured("300 0 0 spoon\n"), "palette.txt"),
    "hexadecimal": (
        yards.coloured(
            "#ff0000 spoon\n",
        ),
        "palette.txt",
    ),
    "unknown stems": (yards.only((), "p0\np7\n"), "p7"),
    "stems twice": (yards.only((), "p0\np0.jpg\n"), "p0"),
    "no stems": (yards.only((), "\n"), "test.txt"),
    "a way out": (yards.only((), "../../mine/holiday\n"), "holiday"),
    "in both": (
        lambda yard, _: [
            (yard.root / f"{name}.txt").write_text("p0\n") for name in ("test", "train")
        ],
        "p0",
    ),
}
