"""The synthetic set of a profile, as something to export."""

from ml.cli.exporting.knowledge import (
    BY_A_MODEL,
    detector_facts,
    detector_of,
    drawing_facts,
    judged_faults,
    licences,
    score_faults,
    vocabulary_of,
)
from ml.exports.about import About
from ml.pipeline.audit import STAGE
from ml.pipeline.audited import audited
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.manifest import read_manifest

ORIGIN = {"text": "prompt", "seed": "seed"}


def synthetic_about(params: Params, workspace: Workspace) -> About:
    """What is known of the finished set. Raises ManifestError where it is not finished or damaged,
    ValueError for another vocabulary than it was made with."""
    manifest = read_manifest(workspace.folder(STAGE))
    vocabulary = vocabulary_of(params, manifest)
    facts, module = manifest.facts, manifest.inputs["grounding_model"]
    reasons = facts.get("by_reason", {})
    lost = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
    judge = detector_of(workspace, params)["model"]
    return About(
        name=f"{params.profile}: synthetic pictures with masks",
        digest=manifest.digest,
        intro=(
            "Pictures drawn by a text-to-image model for prompts that name "
            f"{len(vocabulary.classes)} classes, each with a label map by a grounding module on "
            "the same model."
        ),
        classes=vocabulary.classes,
        origin=ORIGIN,
        facts=(
            ("profile", params.profile),
            ("set", f"synthetic_dataset, {manifest.digest}"),
            *drawing_facts(manifest),
            ("grounding module", module),
            *detector_facts(workspace, params, vocabulary),
            (
                "uncertain (255)",
                f"winner or word within {manifest.params['synthetic']['ignore_band']}",
            ),
            ("seed of the profile", str(manifest.params["seed"])),
            ("prompt and seed", "of each picture, beside it"),
        ),
        faults=(
            BY_A_MODEL,
            f"Left out of {facts.get('pictures', '?')} pictures: {lost or 'none'}.",
            *score_faults(workspace, module),
            *judged_faults(workspace, manifest.digest),
        ),
        licences=licences([manifest.params["diffusion"]["model"], judge]),
        precision=tuple(audited(workspace, STAGE).rows),
    )
