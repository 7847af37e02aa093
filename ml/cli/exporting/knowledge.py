"""What a workspace knows about a set and the models that made it, for the card of an export."""

from typing import Any

from ml.exports.about import Licence
from ml.exports.licences import licence_of
from ml.pipeline.audit import STAGE
from ml.pipeline.finished import manifest_of, refuse_other_words
from ml.pipeline.workspace import VERDICT, Workspace
from ml.settings.params import Params
from ml.store.manifest import Manifest
from ml.store.seals import read_sealed
from ml.words.vocabulary import Vocabulary, load_vocabulary

Facts = tuple[tuple[str, str], ...]
BY_A_MODEL = "The masks were made by a model: nobody drew or corrected them."


def vocabulary_of(params: Params, manifest: Manifest) -> Vocabulary:
    """The profile's vocabulary. Raises ValueError where it is not a stage's own."""
    vocabulary = load_vocabulary(params.vocabulary)
    refuse_other_words(manifest, vocabulary)
    return vocabulary


def drawing_facts(manifest: Manifest) -> Facts:
    """How pictures are drawn with the diffusion model that a manifest names."""
    own = manifest.params["diffusion"]
    steps = f"{own['scheduler']}, {own['steps']} steps, guidance {own['guidance_scale']}"
    return (
        ("diffusion model", model_text(own, manifest.inputs["diffusion.model"])),
        ("drawn by", steps),
    )


def model_text(own: dict[str, Any], digest: str | None = None) -> str:
    """A model's name, revision, variant and digest, of a section of the settings."""
    parts = [own["model"]]
    parts += [f"{key} {own[key]}" for key in ("revision", "variant") if own.get(key)]
    parts += [f"sha256 {digest}"] if digest and digest != own["model"] else []
    return ", ".join(parts)


def detector_of(workspace: Workspace, params: Params) -> dict[str, Any]:
    """The section `detector` that the masks were made with; that of the settings where they are not
    there."""
    found = manifest_of(workspace, "masks")
    own = found.params["detector"] if found else params.section("detector")
    assert isinstance(own, dict)  # a section
    return own


def detector_facts(workspace: Workspace, params: Params, vocabulary: Vocabulary) -> Facts:
    """Whose masks the grounding module learned from, and of which classes."""
    own = detector_of(workspace, params)
    return (
        ("masks to learn from", f"{own['backend']}: {model_text(own)}"),
        ("seen classes (with such masks)", ", ".join(vocabulary.seen)),
        ("unseen classes (named only)", ", ".join(vocabulary.unseen) or "none"),
    )


def judged_faults(workspace: Workspace, digest: str) -> tuple[str, ...]:
    """What the checks of the synthetic set found, by their last verdict on it as it is now. Raises
    ValueError for a damaged verdict."""
    verdict = read_sealed(workspace.state(STAGE) / "quality.json", VERDICT)
    if verdict is None or verdict["digest"] != digest:
        return ("No checks have judged this set yet.",)
    failures = tuple(f"A check failed: {text}." for text in verdict["failures"])
    results = verdict.get("results", [])
    tolerated = tuple(
        f"Within the bounds of the check {one['name']}: {one['observed']}."
        for one in results
        if one["passed"] and one["unexpected_percent"] > 0
    )
    if failures:
        return failures + tolerated
    return (f"All {len(results)} checks of the set passed.", *tolerated)


def score_faults(workspace: Workspace, module: str) -> tuple[str, ...]:
    """How good the grounding module is by its own test. module: its digest."""
    found = manifest_of(workspace, "grounding_scores")
    ours = (
        found.facts.get("ours") if found and found.inputs.get("grounding_model") == module else None
    )
    if not isinstance(ours, dict):
        return ()
    cells = ", ".join(f"{name.replace('_', ' ')} {value:.1f}" for name, value in ours.items())
    return (
        f"Masks of the module against a detector's on other pictures, mIoU in percent: {cells}.",
    )


def licences(models: list[str]) -> tuple[Licence, ...]:
    """Of models by their names in the settings, each once."""
    return tuple(licence_of(name) for name in dict.fromkeys(models))
