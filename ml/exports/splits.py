"""Which pictures go to which split: by a seed, near copies together."""

import re

import numpy as np
import numpy.typing as npt

DEFAULT = "train=0.9,val=0.1"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
TAKEN = ("all", "trainval")
"""Names that formats give to splits together."""
RESERVED = {
    "coco": ("annotations",),  # the folder of the JSON files, beside those of the splits
    "yolo-seg": (
        *("path", "nc", "names", "channels", "download", "yaml_file"),  # other keys of data.yaml
        *("images", "labels"),  # readers find a label by the last folder of such a name
    ),
}
"""Format -> names that mean something else to it, capitals or not."""


def read_split(text: str, kind: str = "") -> dict[str, float]:
    """{"train": 0.8, "val": 0.2} of "train=0.8,val=0.2", the largest first.

    kind: the format that they are for. Raises ValueError for anything else than names, none of them
    the format's own, with shares above 0 that make 1.
    """
    shares: dict[str, float] = {}
    taken = (*TAKEN, *RESERVED.get(kind, ()))
    for part in text.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if (
            not NAME.fullmatch(name)
            or name.lower() in taken
            or name in shares
            or not 0 < value <= 1
        ):
            raise ValueError(
                f"split {part.strip()!r}: expected a name (a letter, then letters, digits or _; "
                f"none of {', '.join(taken)}; each once) and a share above 0, as in {DEFAULT}"
            )
        shares[name] = value
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(
            f"split {text!r}: the shares make {sum(shares.values()):g}, expected 1, as in {DEFAULT}"
        )
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def assign(
    groups: npt.NDArray[np.int64], shares: dict[str, float], seed: int
) -> npt.NDArray[np.int8]:
    """int8 (n,): which of the splits each picture goes to.

    groups: int64 (n,); pictures of one group stay together. Groups come in the seed's order, each
    to the split that lacks most. Raises ValueError where a split would be empty.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    wanted, counts = np.array(list(shares.values())), np.zeros(len(shares))
    chosen = np.zeros(len(sizes), np.int8)
    done = 0
    for number in order:  # no list: it would hold a hundred thousand objects
        done += int(sizes[number])
        place = int((wanted * done - counts).argmax())
        chosen[number] = place
        counts[place] += sizes[number]
    if empty := [name for name, count in zip(shares, counts, strict=True) if not count]:
        raise ValueError(
            f"the split {empty[0]}={shares[empty[0]]:g} of {len(groups)} pictures "
            f"({len(sizes)} groups of near copies) holds none: give it a larger share"
        )
    places: npt.NDArray[np.int8] = chosen[group]
    return places
