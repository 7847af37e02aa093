"""Checks that a stage's inputs were made from one another, and for the settings asked for.

A manifest records what it was made from. Masks of pictures that were drawn again since, a data set
in another vocabulary's labels, latents of another diffusion model: each is valid by itself,
together they are wrong.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml.errors import ManifestError
from ml.store.files import sha256_json
from ml.store.manifest import NAME, Manifest, Recipe, read_manifest
from ml.store.stage_places import folder_of

DIGEST = "vocabulary_digest"
FREE = ("vocabulary", "texts_digest", "benchmark.root")
"""Not compared: a vocabulary's name (its digest is), the digest of the texts, which `prompts` alone
reads, and real data, of which each stage reads its own part."""


def check_lineage(recipe: Recipe, vocabulary: str, data: Path, order: Sequence[str]) -> None:
    """Compares everything upstream of a recipe that is there with the recipe and with each other.

    vocabulary: digest of the one in use. order: stages, earlier ones first. Raises ManifestError
    that names what does not agree and what to run.
    """
    upstream = upstream_of(recipe, data)
    names = sorted(upstream, key=lambda name: order.index(name) if name in order else -1)
    models = {
        key: (digest, "asked for is")
        for key, digest in recipe["inputs"].items()
        if not _is_stage(key)
    }
    wrong = {
        name: [
            *_other_inputs(name, upstream),
            *_other_models(name, upstream[name], models),
            *_other_settings(name, upstream[name], recipe["params"], vocabulary),
        ]
        for name in names
    }
    if wrong_texts := [text for name in names for text in wrong[name]]:
        commands = ", ".join(f"`python -m ml {name}`" for name in names if wrong[name])
        raise ManifestError(
            f"stage {recipe['stage']!r}: its inputs do not belong together: "
            f"{'; '.join(wrong_texts)}. Run {commands} and what follows from it, or "
            "`python -m ml all`"
        )


def upstream_of(recipe: Recipe, data: Path) -> dict[str, Manifest]:
    """The manifests of a recipe's inputs, of their inputs, and so on, as far as they are there.

    Raises ManifestError for one that can't be read, or stands in another stage's folder.
    """
    found: dict[str, Manifest] = {}
    open_ = list(recipe["inputs"])
    while open_:
        name = open_.pop()
        if name in found or not _is_stage(name):
            continue
        folder = folder_of(data, name)
        if not (folder / NAME).is_file():
            continue
        found[name] = read_manifest(folder, verify=False)
        if found[name].stage != name:
            raise ManifestError(
                f"{folder / NAME} is of the stage {found[name].stage!r}: this "
                f"is not the folder of {name!r}; bring that back"
            )
        open_ += found[name].inputs
    return found


def _other_inputs(name: str, upstream: dict[str, Manifest]) -> Iterator[str]:
    for source, digest in upstream[name].inputs.items():
        if source in upstream and upstream[source].digest != digest:
            yield (
                f"{name!r} was made from {source!r} {digest[:12]}, which is "
                f"{upstream[source].digest[:12]} now"
            )


def _other_models(name: str, own: Manifest, models: dict[str, tuple[str, str]]) -> Iterator[str]:
    """models: digest of each foundation model and whose it is; the manifest's own are added."""
    for key, digest in own.inputs.items():
        if _is_stage(key) or key in FREE:
            continue
        first, whose = models.setdefault(key, (digest, f"of {name!r}"))
        if digest != first:
            yield f"{name!r} was made with the {key} {_short(digest)}, {whose} {_short(first)}"


def _other_settings(
    name: str, own: Manifest, asked: dict[str, Any], vocabulary: str
) -> Iterator[str]:
    if own.params.get(DIGEST, vocabulary) != vocabulary:
        yield (
            f"{name!r} was made with the vocabulary {own.params.get('vocabulary')!r} as it was "
            f"then ({own.params[DIGEST][:12]}), which is {vocabulary[:12]} now"
        )
    for setting, value in asked.items():
        # Of a section (diffusion, segmenter) some settings only say how fast something is made.
        if setting in FREE or setting == DIGEST or isinstance(value, dict):
            continue
        if sha256_json(own.params.get(setting, value)) != sha256_json(value):
            yield f"{name!r} was made with {setting} {own.params[setting]!r}, now it is {value!r}"


def _is_stage(name: str) -> bool:
    """Whether an input is a stage's folder; the others are settings' names, `diffusion.model`."""
    return "." not in name


def _short(digest: str) -> str:
    """The beginning of a digest; a hub id unchanged."""
    return digest if "/" in digest else digest[:12]
