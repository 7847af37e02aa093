"""Every setting that changes a result, as frozen dataclasses read from `params.yaml`.

`params.yaml` is the micro profile and names every field; a file of `profiles/` overrides some of
them, and may build upon another one (`base: sd15`). Nothing else (no global, no environment
variable) changes what a stage writes.

A field's annotation says what it may be (`ml.settings.ranges`), what two fields must be together
stands in `ml.settings.relations`; both are checked at loading. Which files a profile has is found
by `ml.settings.files`; what a setting does belongs to its stage.
"""

import dataclasses
import typing
from pathlib import Path

from ml.settings.files import INSTALLED, Settings, read_settings
from ml.settings.params import Params
from ml.settings.ranges import fit
from ml.settings.relations import relations

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

Section = typing.TypeVar("Section")
ROOT = Path.cwd() if INSTALLED.is_dir() else Path(__file__).resolve().parents[2]


def load_params(profile: str = "micro", root: Path = ROOT) -> Params:
    """Settings of a profile: `params.yaml`, overridden by `profiles/<profile>.yaml`.

    `profile` may also be the path of a YAML file. A file with `base: other` overrides that
    profile instead of `params.yaml`. Raises ValueError naming file, line and field for what
    `ml.settings.files` refuses, a missing field, a value that its annotation does not take, or two
    that do not go together.
    """
    settings = read_settings(profile, Path(root))
    params = _build(Params, settings.values, settings, "")
    for fields, expected, got, holds in relations(params):
        if not holds:
            raise ValueError(
                f"{settings.place(*fields)}: {fields[0]}: expected {expected}, got {got!r}"
            )
    file, root = settings.file.resolve(), Path(root).resolve()
    own = str(file.relative_to(root) if file.is_relative_to(root) else file)
    object.__setattr__(params, "file", own)  # frozen, and no field
    return params


def find_file(name: str) -> Path:
    """A user's file by its path from the current folder, else from the checkout.

    The path is returned as it is when neither is there.
    """
    return next((p for p in (Path(name), ROOT / name) if p.is_file()), Path(name))


def _build(cls: type[Section], values: object, settings: Settings, above: str) -> Section:
    every = typing.get_type_hints(cls, include_extras=True)
    named = typing.cast("type[DataclassInstance]", cls)
    hints = {field.name: every[field.name] for field in dataclasses.fields(named)}
    if not isinstance(values, dict):
        raise ValueError(
            f"{settings.places[above[:-1]]}: {above[:-1]}: expected a mapping of "
            f"settings, got {values!r}"
        )
    unknown, missing = sorted(set(values) - set(hints)), sorted(set(hints) - set(values))
    if unknown or missing:  # a profile cannot: it may override only what params.yaml has
        raise ValueError(
            f"{settings.base}: {above[:-1]}: unknown settings {unknown}, missing settings {missing}"
        )
    built: dict[str, object] = {}
    for name, hint in hints.items():
        full = f"{above}{name}"
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            built[name] = _build(hint, values[name], settings, f"{full}.")
            continue
        try:
            built[name] = fit(values[name], hint)
        except ValueError as error:
            raise ValueError(f"{settings.place(full)}: {full}: {error}") from None
    return cls(**built)
