"""`python -m ml convert-grounding grounding_module.pth --out authors`: the checkpoint that the
paper's authors released, as a folder that `GroundedDiffusionPipeline.from_pretrained` opens.

Their file is a pickle: it is read by a loader that can only make tensors, and nothing in it is run.
Every tensor must be there, known and of its shape. The profile says with which Stable Diffusion 1,
and in which steps, pictures are drawn; the module is the authors', whatever `grounding:` says. The
folder must be new, and appears whole or not at all (docs/diffusion-models.md).
"""

import os
from dataclasses import asdict
from pathlib import Path

from ml.arguments import add_profile, add_root, folder, make_parser
from ml.errors import DONE, shown

SETTLED = 1e-3
"""A largest singular value this share above the one divided by changes one mask pixel in 4,000
(their module with fresh weights, its power iteration stopped there and at its end)."""


def main(arguments: list[str]) -> int:
    """Writes the folder, says what is in it, and returns the exit code."""
    parser = make_parser("python -m ml convert-grounding", __doc__)
    parser.add_argument("checkpoint", type=Path, help="the authors' file (.pth or .safetensors)")
    add_profile(parser, "sd15")
    parser.add_argument("--out", type=folder, required=True, help="a folder that is not there yet")
    add_root(parser, "folder that the profile's diffusion.model is looked for in")
    chosen = parser.parse_args(arguments)
    taken = f"--out {chosen.out} exists already: name a new folder, or move it away"
    if os.path.lexists(chosen.out):
        raise ValueError(taken)
    from ml.grounding.authors import read_authors
    from ml.grounding.opening import REFERENCE, Reference
    from ml.pipeline.workspace import Workspace
    from ml.settings.profile import load_params
    from ml.store.files import atomic, sha256_file, write_json

    params = load_params(chosen.profile)
    workspace = Workspace(chosen.root, params.profile)
    known = refuse_other_shape(params, workspace)
    module, unsettled = read_authors(chosen.checkpoint)
    drawing = workspace.located(params.diffusion)
    reference = Reference(
        diffusion=drawing.model,
        batch_size=drawing.batch_size,
        revision=drawing.revision,
        variant=drawing.variant,
        scheduler=drawing.scheduler,
        dtype=drawing.dtype,
        steps=drawing.steps,
        guidance_scale=drawing.guidance_scale,
    )
    source = {"file": chosen.checkpoint.name, "sha256": sha256_file(chosen.checkpoint)}
    with atomic(chosen.out, taken=taken) as making:
        module.save_pretrained(making / "grounding")
        write_json(making / REFERENCE, asdict(reference))
        write_json(making / "converted.json", source | {"unsettled": unsettled})
    count = sum(parameter.numel() for parameter in module.parameters())
    print(shown(f"{chosen.out}: written, {count:,} parameters of {chosen.checkpoint.name}"))
    print(
        shown(
            f"draws with {drawing.model}, {drawing.scheduler}, {drawing.steps} steps, guidance "
            f"{drawing.guidance_scale:g}"
        )
    )
    if not known:
        print(
            "note: that model is not on this machine, and its shape is not known here: whether it "
            "is a Stable Diffusion 1 is seen when the folder is opened"
        )
    if unsettled > SETTLED:
        print(
            f"note: the spectral norms of this checkpoint are {unsettled:.1%} from settled: the "
            "authors' code gives these masks for the first picture after loading, and others later"
        )
    return DONE


def refuse_other_shape(params, workspace) -> bool:
    """Whether the shape of the profile's diffusion model is known; raises ValueError where it is,
    and is another than the authors' module was made for."""
    from ml.cli.planning.drawing import drawing_of
    from ml.cli.planning.models import find_diffusion
    from ml.grounding.authors_table import CONFIG

    drawing = drawing_of(find_diffusion(params, workspace))
    if drawing is None:
        return False
    found = (drawing.features, drawing.text_width, drawing.side)
    if found != (CONFIG.feature_channels, CONFIG.text_width, CONFIG.picture_size):
        raise ValueError(
            f"diffusion.model {params.diffusion.model!r} has features of {drawing.features} "
            f"channels by resolution, words of {drawing.text_width} and pictures of {drawing.side} "
            f"pixels: the authors' module takes {CONFIG.feature_channels}, {CONFIG.text_width} and "
            f"{CONFIG.picture_size}, a Stable Diffusion 1; choose --profile sd15, or one upon it"
        )
    return True
