"""What is asked of a denoiser, whatever its architecture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from ml.diffusion.pipeline import Pipeline
from ml.settings.sections import DiffusionParams


@dataclass(frozen=True)
class Tap:
    """A place whose output is a feature map."""

    module: nn.Module  # whose output is taken
    channels: int
    resolution: int  # side of the map


def chosen(taps: Sequence[Tap], blocks: Sequence[int]) -> list[Tap]:
    """The taps of some blocks, in the order of the network. Raises ValueError for a place that
    there is not, or for none."""
    if not blocks or not set(blocks) <= set(range(len(taps))):
        raise ValueError(
            f"blocks: expected one or more of 0 to {len(taps) - 1}, the blocks of this model, got "
            f"{list(blocks)}"
        )
    return [taps[at] for at in sorted(set(blocks))]


@dataclass(frozen=True)
class EncodedPrompts:
    """What the denoiser is given of each prompt, on the pipeline's device and in its dtype."""

    hidden: Tensor  # (B,L,D): what it attends to
    pooled: Tensor | None = None  # (B,P): of the whole text, where the model takes it
    time_ids: Tensor | None = None  # (B,6), SDXL alone: sizes and crop, whole pictures

    def __getitem__(self, rows: Sequence[int]) -> "EncodedPrompts":
        pooled, time_ids = self.pooled, self.time_ids
        return EncodedPrompts(
            self.hidden[rows],
            None if pooled is None else pooled[rows],
            None if time_ids is None else time_ids[rows],
        )

    def sampling(self, prefix: str = "") -> dict[str, Tensor]:
        """Arguments of a call of the pipeline."""
        embeds = {"prompt_embeds": self.hidden, "pooled_prompt_embeds": self.pooled}
        return {prefix + name: value for name, value in embeds.items() if value is not None}


class Process(Protocol):
    """How a picture's latent is mixed with noise, and what the denoiser says of the mixture.

    Timesteps are whole numbers 0..999, 0 the least noise.
    """

    predictions: tuple[str, ...]
    """Values of `prediction_type` that are understood; none where there is no such field."""

    def shares(self, scheduler: Any, timestep: int) -> tuple[float, float]:
        """The factors of picture and noise at a timestep, each 0..1."""

    def to_velocity(self, scheduler: Any, timestep: int) -> float:
        """The factor that turns a difference of predictions into one of the process's velocity."""

    def target(self, scheduler: Any, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """What the denoiser should predict of clean latents mixed with this noise."""

    def check_name(self, name: str) -> None:
        """Raises ValueError, listing the names that fit, for a scheduler of the other process.
        Needs no model."""

    def swapped(self, scheduler: Any, name: str) -> Any:
        """A scheduler of another class with the model's own schedule. Raises ValueError for one
        that can't have it."""

    def check(self, scheduler: Any, steps: int) -> None:
        """Raises ValueError for a scheduler that does not draw in so many steps."""

    def inverted(
        self, scheduler: Any, latents: Tensor, timestep: int, predict: "Predict"
    ) -> Tensor:
        """Clean latents brought to a timestep of 1..999 along the model's own predictions."""


class Predict(Protocol):
    def __call__(self, latents: Tensor, timestep: int, /) -> Tensor:
        """The prediction float32 (B,C,h,w)."""


class Backbone(Protocol):
    """One kind of denoiser. It has no state: everything is in the pipeline."""

    part: str
    """The attribute of the pipeline, and the folder, that the denoiser is."""
    halves: int
    """2 where a step is given the unconditional text beside the prompt (classifier-free guidance),
    1 where guidance is distilled into the model and there is the prompt alone."""
    cross_attention: bool
    """Whether text is attended to in layers of its own; else jointly with the picture."""
    process: Process
    wide: bool
    """Whether features may leave float16's range: those of a transformer's residual stream grow
    from block to block."""
    settings: tuple[str, ...]
    """Attributes of the pipeline that `configure` sets, and a saved pipeline must keep."""

    def check(self, diffusion: DiffusionParams) -> None:
        """Raises ValueError for settings that do not fit this kind. Needs no model, so that nothing
        is downloaded for them."""

    def configure(self, pipe: Pipeline, diffusion: DiffusionParams) -> None:
        """Settings that this kind alone has, and its memory format."""

    def check_guidance(self, pipe: Pipeline, scale: float) -> None:
        """Raises ValueError for a guidance scale that pictures can't be drawn with."""

    def told_guidance(self, pipe: Pipeline) -> float | None:
        """The guidance that `predict` tells a model that guidance was distilled into; None where a
        pass is told none."""

    def shape(self, pipe: Pipeline) -> tuple[int, int, int]:
        """(C,h,w) of a latent of the pipeline's own picture size."""

    def side(self, network: nn.Module) -> int:
        """Side of the latent that the network was trained at, where no pipeline says another."""

    def taps(self, network: nn.Module, side: int, blocks: Sequence[int] | None = None) -> list[Tap]:
        """Where features are taken, in the order of the network. side: of the latent. blocks:
        places among all that there are, from 0; by default those that its kind takes."""

    def feature_map(self, output: Any, tap: Tap) -> Tensor:
        """The output of a tap's module as (B,C,r,r)."""

    def encode(self, pipe: Pipeline, texts: list[str], size: tuple[int, int]) -> EncodedPrompts:
        """Texts as the denoiser is given them. size: (H,W) of the pictures."""

    def word_states(self, pipe: Pipeline, hidden: Tensor) -> Tensor:
        """Of `EncodedPrompts.hidden` the tokens and channels (B,L,D) that words are read from;
        the tokenizers of `text_parts` cut them."""

    def predict(
        self, pipe: Pipeline, latents: Tensor, timestep: int | Tensor, text: EncodedPrompts
    ) -> Tensor:
        """One pass: latents (B,C,h,w) at timesteps 0..999 to the prediction (B,C,h,w)."""

    def seen(
        self, pipe: Pipeline, inputs: tuple[Any, ...], named: Mapping[str, Any]
    ) -> tuple[Tensor, float]:
        """Of the arguments of a call of the denoiser by its pipeline: latents (halves * B,C,h,w)
        and the timestep."""

    def attentions(self, network: nn.Module) -> list[Any]:
        """The layers in which the picture attends to the text, whose maps DAAM sums."""

    def attention_shares(self, attention: Any, pixels: Tensor, text: Tensor, *more: Any) -> Tensor:
        """float32 (B,heads,N,L): how a layer's N pixels share their attention among L tokens.
        pixels (B,N,D), text (B,L,D') and what else its processor was given."""

    def joint_blocks(self, network: nn.Module) -> list[nn.Module]:
        """The blocks in which picture and text attend to each other; none in a U-Net."""

    def beside(
        self, arguments: Mapping[str, Any], rows: Sequence[int], text: Tensor
    ) -> dict[str, Any]:
        """The arguments of a joint block's call for some rows of its batch, with other tokens
        (b,n,D) in the text's place."""
