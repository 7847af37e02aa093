"""Pictures by their keys, out of a stage's shards."""

from collections.abc import Collection, Sequence
from pathlib import Path

from ml.images.arrays import Picture
from ml.images.png import decode_png
from ml.store.shards import read_frame
from ml.store.sidecars import shard_files


def load_pictures(
    folder: Path, keys: Sequence[str], shards: Collection[Path] | None = None
) -> dict[str, Picture]:
    """The pictures uint8 (H,W,3) of some keys, out of shards with the columns `key` and `image`.

    shards: the only ones of the folder to look into; None for all. Raises ValueError naming a key
    that is not there.
    """
    wanted = set(keys)
    found: dict[str, Picture] = {}
    files = [path for path in shard_files(folder) if shards is None or path in shards]
    for path in files if wanted else []:
        frame = read_frame(path, ["key", "image"], filters=[("key", "in", wanted)])
        found |= {key: decode_png(data) for key, data in zip(frame.key, frame.image, strict=True)}
    if missing := sorted(wanted - set(found)):
        raise ValueError(
            f"{folder} holds no picture {missing[0]!r} ({len(missing)} are missing): "
            "make the stages that name it from these pictures"
        )
    return found


class Pictures:
    """The pictures of shards, one shard's PNG bytes in memory: fast in the order of the shards."""

    def __init__(self) -> None:
        self.shard: Path | None = None
        self.data: list[bytes] = []

    def read(self, shard: Path, row: int) -> Picture:
        """uint8 (H,W,3) RGB."""
        if shard != self.shard:
            self.shard, self.data = shard, list(read_frame(shard, ["image"])["image"])
        return decode_png(self.data[row])
