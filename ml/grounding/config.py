"""What a grounding module is made of: a frozen dataclass, saved as `config.json`.

`paper` is the authors' module, layer by layer, and gives their outputs with their weights. It
differs from their code in three points: pictures of a batch do not influence one another (theirs is
right at batch 1 only, where both are the same); features coarser than 64x64 pixels, which their
model does not have, are cut into patches of one place; and the spectral norms are updated in a
different way, which converges to the same. `seeded` is ours and is built of other parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypedDict

from ml.settings.sections import GroundingParams
from ml.store.files import write_json
from ml.store.reading import read_object

VARIANTS = ("paper", "seeded")


class Parts(TypedDict):
    """The fields of `GroundingConfig` that a variant fixes."""

    normalisation: str
    biased_blocks: bool
    standardised: bool
    scaled_logits: bool


PARTS: dict[str, Parts] = {
    # Normalisation over one picture: theirs is BatchNorm in training mode, also when it predicts.
    "paper": {
        "normalisation": "instance",
        "biased_blocks": True,
        "standardised": False,
        "scaled_logits": False,
    },
    "seeded": {
        "normalisation": "group",
        "biased_blocks": False,
        "standardised": True,
        "scaled_logits": False,
    },
}
"""What each variant is built of."""
LEARNED_UPSAMPLING = {"paper": False, "seeded": True}
"""Whether a map coarser than 64x64 pixels is enlarged by convolutions; the authors' is bilinear."""
BEFORE: dict[str, object] = {
    "normalisation": "group",
    "biased_blocks": False,
    "standardised": True,
    "scaled_logits": True,
}
"""What both were built of when `config.json` did not say so."""
NORMALISATIONS = ("instance", "group")
COUNTS = ("text_width", "width", "layers", "heads", "patch", "upsampling", "pixel_width")
TOKEN_GRID = 16
"""Side of the grid of visual tokens that queries look at: the paper's 64 / 4."""


@dataclass(frozen=True)
class GroundingConfig:
    variant: str  # paper: text query, sigmoids; seeded: text and evidence query, softmax
    feature_channels: dict[int, int]  # resolution -> channels of both guidance halves, ascending
    encoder_widths: tuple[int, ...]  # channels kept of each resolution, in the same order
    text_width: int  # of a word's embedding
    width: int  # of the fusion transformer
    layers: int
    heads: int
    patch: int  # side of the patches of the fused map that become tokens
    upsampling: int  # from the finest features to the picture, a power of 2
    learned_doublings: int  # of the upsampling, how many with convolutions; the rest is bilinear
    pixel_width: int  # channels of the map that is multiplied with a word's mask embedding
    evidence_timesteps: tuple[int, ...]  # of the leave-one-out contrast, 0..999
    feature_timestep: int  # of the latents that it was trained on, 0..999
    normalisation: str  # of the encoder, of one picture: instance (a channel), group (8 groups)
    biased_blocks: bool  # whether the encoder's 3x3 convolutions have biases
    standardised: bool  # features are brought to mean 0 and deviation 1 of the training pictures
    scaled_logits: bool  # logits are multiplied by pixel_width^-1/2
    lone_block: bool  # features of one resolution pass a block of convolutions too

    def __post_init__(self) -> None:
        resolutions = sorted(self.feature_channels)
        counts = {name: getattr(self, name) for name in COUNTS}
        every = [
            *counts.values(),
            *resolutions,
            *self.feature_channels.values(),
            *self.encoder_widths,
        ]
        if not resolutions or not all(type(count) is int and count > 0 for count in every):
            raise ValueError(
                "grounding config: expected feature_channels, and whole numbers above "
                f"0, got {self.feature_channels}, {self.encoder_widths}, {counts}"
            )
        times = (*self.evidence_timesteps, self.feature_timestep)
        rules = [
            (
                all(type(time) is int and 0 <= time < 1000 for time in times),
                f"timesteps {times}: expected whole numbers 0..999",
            ),
            (
                len(self.evidence_timesteps) > 0 or self.variant == "paper",
                "evidence_timesteps: expected one or more",
            ),
            (self.variant in VARIANTS, f"variant {self.variant!r}: expected one of {VARIANTS}"),
            (
                self.normalisation in NORMALISATIONS,
                f"normalisation {self.normalisation!r}: expected one of {NORMALISATIONS}",
            ),
            (
                resolutions == list(self.feature_channels),
                f"feature_channels: expected ascending resolutions, got {self.feature_channels}",
            ),
            (
                len(self.encoder_widths) == len(resolutions),
                f"{len(self.encoder_widths)} encoder widths for {len(resolutions)} resolutions: "
                "give one each",
            ),
            (
                len(resolutions) == 1 or not self.lone_block,
                f"lone_block is of features of one resolution, got {resolutions}",
            ),
            (
                self.width % self.heads == 0,
                f"width {self.width} is not a multiple of the "
                f"{self.heads} heads: change one of them",
            ),
            (
                resolutions[-1] % self.patch == 0,
                f"patch {self.patch} does not divide the finest resolution {resolutions[-1]}",
            ),
            (
                2**self.learned_doublings <= self.upsampling,
                f"{self.learned_doublings} learned "
                f"doublings are more than the upsampling by {self.upsampling}",
            ),
        ]
        for holds, message in rules:
            if not holds:
                raise ValueError(f"grounding config: {message}")

    @property
    def competition(self) -> bool:
        """Whether the words of a picture and its background share each pixel (softmax)."""
        return self.variant == "seeded"

    @property
    def picture_size(self) -> int:
        """Side of the masks, pixels."""
        return list(self.feature_channels)[-1] * self.upsampling

    def save(self, file: Path) -> None:
        write_json(file, asdict(self))

    @classmethod
    def load(cls, file: Path) -> "GroundingConfig":
        """The config in a file. One from before the parts were fields is completed from `BEFORE`.
        Raises ValueError, naming the file, for other missing or unknown fields."""
        values = read_object(file)
        if not set(BEFORE) & set(values):
            values = BEFORE | values
        values.setdefault("lone_block", False)  # as they were all built before it was a field
        expected = {f.name for f in fields(cls)}
        if set(values) != expected:
            raise ValueError(
                f"{file}: missing {sorted(expected - set(values))}, unknown "
                f"{sorted(set(values) - expected)}: not a config of this version's "
                "grounding module; train it again (stage grounding_model)"
            )
        try:
            channels = {int(r): c for r, c in values["feature_channels"].items()}  # keys are text
            values["feature_channels"] = dict(sorted(channels.items()))
            for name in ("encoder_widths", "evidence_timesteps"):
                values[name] = tuple(values[name])
            return cls(**values)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{file}: {error}: it was edited or damaged; train the module again "
                "(stage grounding_model)"
            ) from error


def make_config(
    params: GroundingParams,
    feature_channels: Mapping[int, int],
    text_width: int,
    picture_size: int,
    feature_timestep: int,
    variant: str | None = None,
    evidence_timesteps: Sequence[int] | None = None,
    learned_upsampling: bool | None = None,
) -> GroundingConfig:
    """The config that fits a diffusion model.

    Features of 64x64 and finer get the paper's sizes: the finest resolution keeps width / 4
    channels, each coarser one half of that, and logits are upsampled bilinearly. Coarser features
    keep twice as much and, with learned_upsampling (by default the variant's LEARNED_UPSAMPLING),
    are doubled by convolutions up to 64x64 pixels: from 16x16, a bilinear mask cannot draw a
    chair's leg. Features of one resolution, as a transformer's, pass a block of convolutions as
    those of several do where they are joined: without any, the paper's module tells two words
    apart much worse (the study `backbones`). Raises ValueError when the sizes do not fit.
    """
    variant = variant or params.variant
    if learned_upsampling is None:
        learned_upsampling = LEARNED_UPSAMPLING[variant]
    channels = dict(sorted(feature_channels.items()))
    finest = list(channels)[-1]
    upsampling = picture_size // finest
    if upsampling * finest != picture_size or upsampling & (upsampling - 1):
        raise ValueError(
            f"pictures of {picture_size} pixels and features of {finest}: expected a "
            "ratio that is a power of 2; choose another picture size"
        )
    doublings = 0
    while learned_upsampling and finest * 2**doublings < 64 and 2**doublings < upsampling:
        doublings += 1
    kept = params.width // 4 if finest >= 64 else params.width // 2
    widths = tuple(max(kept >> step, 8) for step in reversed(range(len(channels))))
    return GroundingConfig(
        variant=variant,
        feature_channels=channels,
        encoder_widths=widths,
        text_width=text_width,
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        patch=max(finest // TOKEN_GRID, 1),
        upsampling=upsampling,
        learned_doublings=doublings,
        pixel_width=max(params.width // 4, 8) if doublings else sum(widths),
        evidence_timesteps=tuple(evidence_timesteps or params.evidence_timesteps),
        feature_timestep=feature_timestep,
        lone_block=len(channels) == 1,
        **PARTS[variant],
    )
