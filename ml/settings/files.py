"""The YAML files of a profile: which they are, in which order they override, and which file set a
value.

Not here: what the settings are and what fits them (`ml.settings.profile`).
"""

import difflib
import re
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ml.store.files import read_note, write_json
from ml.store.reading import read_yaml, yaml_lines

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
INSTALLED = Path(__file__).resolve().parents[1] / "defaults"
"""params.yaml and profiles/ of a wheel; in a checkout there is none."""
Layer: TypeAlias = tuple[Path, dict[str, Any], dict[str, int]]
"""A file of a profile, its values, and the lines of their keys."""
MOVED = {"shards.processes": "executor.workers"}
"""Settings of earlier versions: what to write instead."""
RESERVED = ("foundation", "real")  # folders below data/ that are not a profile's


@dataclass(frozen=True)
class Place:
    """Where a setting was last set."""

    rank: int  # of the file: the highest one overrides
    file: str
    line: int | None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}, line {self.line}"


@dataclass(frozen=True)
class Settings:
    """The merged values of a profile's files."""

    values: dict[str, Any]  # nested as in params.yaml
    places: dict[str, Place]  # by "key", "key.key", ...
    base: Path  # params.yaml, which names every setting
    file: Path  # of the profile itself

    def place(self, *keys: str) -> Place:
        """Where one of these settings was overridden last."""
        return max((self.places[key] for key in keys), key=lambda place: place.rank)


def read_settings(profile: str, root: Path) -> Settings:
    """`params.yaml` of a checkout, overridden by a profile's files.

    profile: the name of one in `profiles/`, or the path of a YAML file. Raises ValueError naming
    the file, and the line where there is one, for an unknown profile, bases that go in a circle,
    settings that params.yaml does not name, or a profile whose name is not valid or already taken.
    """
    base_file = _shipped(Path(root), "params.yaml")
    if not base_file.is_file():
        raise ValueError(f"no parameter file {base_file}: run from a checkout of the project")
    values, lines = _read(base_file)
    places = _places(values, lines, 0, base_file)
    default = str(values.get("profile"))
    chain = _chain(profile, default, Path(root))
    for rank, (file, override, lines) in enumerate(chain, start=1):
        _merge(values, override, "", file, lines)
        places |= _places(override, lines, rank, file)
        if "profile" not in override:  # named for its file
            values["profile"], places["profile"] = file.stem, Place(rank, str(file), None)
    settings = Settings(values, places, base_file, chain[-1][0] if chain else base_file)
    _refuse_name(settings, default, Path(root))
    return settings


def claim(data: Path, file: str | None, root: Path) -> None:
    """Records in a profile's folder which YAML file it belongs to; None records nothing.

    Raises ValueError when it belongs to another one that is still there: the two would overwrite
    each other's stages. Relative files are below `root`, the checkout.
    """
    note = data / ".state" / "profile.json"
    if file is None:
        return
    other = (read_note(note, {"file": str}) or {}).get("file")
    if other == file:
        return
    if other is not None and (root / other).is_file():
        raise ValueError(
            f"{data} holds the stages of {root / other}, not of {root / file}: rename "
            "one of the two files, or choose another --root"
        )
    write_json(note, {"file": file})


def _shipped(root: Path, name: str) -> Path:
    """A file of the root, or the one that a wheel has where the root has none."""
    own = root / name
    return INSTALLED / name if not own.is_file() and (INSTALLED / name).is_file() else own


def _read(file: Path) -> tuple[dict[str, Any], dict[str, int]]:
    values = read_yaml(file)
    if not isinstance(values, dict):
        raise ValueError(f"{file}: expected a mapping of settings, got {type(values).__name__}")
    return values, yaml_lines(file)


def _places(
    values: dict[str, Any], lines: dict[str, int], rank: int, file: Path, above: str = ""
) -> dict[str, Place]:
    """The place of every key; one that an alias brought along stands where its section does."""
    places = {}
    for key, value in values.items():
        full = f"{above}{key}"
        places[full] = Place(rank, str(file), lines.get(full, lines.get(above[:-1])))
        if isinstance(value, dict):
            places |= _places(value, lines, rank, file, f"{full}.")
    return places


def _chain(profile: str, default: str, root: Path) -> list[Layer]:
    """The files of a profile and of those it builds upon, in the order in which they override."""
    chain: list[Layer] = []
    while profile != default:
        file = _profile_file(profile, default, root, chain[0][0] if chain else None)
        if any(file.resolve() == other.resolve() for other, *_ in chain):
            way = " -> ".join([str(file), *(str(other) for other, *_ in chain)])
            raise ValueError(
                f"`base:` goes in a circle: {way}; one of them must build upon "
                f"{default!r} (leave `base:` out)"
            )
        own, lines = _read(file)
        profile, line = own.pop("base", default), lines.pop("base", None)
        if not isinstance(profile, str):
            raise ValueError(
                f"{Place(0, str(file), line)}: base: expected the name of a profile, "
                f"got {profile!r}"
            )
        chain.insert(0, (file, own, lines))
    return chain


def _profile_file(profile: str, default: str, root: Path, named_by: Path | None) -> Path:
    is_path = profile.endswith((".yaml", ".yml"))
    if is_path or NAME.fullmatch(profile):
        file = Path(profile) if is_path else _shipped(root, f"profiles/{profile}.yaml")
        if file.is_file():
            return file
    known = sorted(
        {
            p.stem
            for place in (root, INSTALLED)
            for p in place.glob("profiles/*.yaml")
            if "." not in p.stem
        }
    )  # ci.run.yaml is Dagster's, not a profile
    asked = f" (the base of {named_by})" if named_by else ""
    raise ValueError(
        f"unknown profile {reprlib.repr(profile)}{asked}: expected {default!r}, one "
        f"of {known} or the path of a YAML file that is there"
    )


def _refuse_name(settings: Settings, default: str, root: Path) -> None:
    """A profile's name is a folder below data/, which no other profile may write into."""
    name, place = settings.values["profile"], settings.places["profile"]
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.casefold() in RESERVED:
        raise ValueError(
            f"{place}: profile: expected a name of letters, digits, - _ and . that is not "
            f"{' or '.join(RESERVED)}, since it is a folder below data/, got {reprlib.repr(name)}. "
            "Rename the file, or set `profile:` in it"
        )
    known = _shipped(root, "params.yaml" if name == default else f"profiles/{name}.yaml")
    if known.is_file() and known.resolve() != settings.file.resolve():
        raise ValueError(
            f"{place}: profile: expected another name than {name!r}, which is that of "
            f"{known}: both would write into data/{name}. Rename the file, or set "
            "`profile:` in it"
        )


def _merge(
    values: dict[str, Any],
    override: dict[str, Any],
    above: str,
    file: Path,
    lines: dict[str, int],
) -> None:
    """Overrides in place. Raises ValueError for a key that is not there already."""
    for key, value in override.items():
        full = f"{above}{key}"
        if key not in values:
            near = difflib.get_close_matches(str(key), values, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {sorted(values)}"
            if full in MOVED:
                hint = f"it is {MOVED[full]!r} now, with the same values: write that instead"
            raise ValueError(
                f"{Place(0, str(file), lines.get(full))}: unknown setting {full!r}; {hint}"
            )
        if isinstance(values[key], dict) and isinstance(value, dict):
            _merge(values[key], value, f"{full}.", file, lines)
        else:
            values[key] = value
