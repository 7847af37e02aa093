"""ConceptAttention (arXiv 2502.04320): maps of words from a diffusion transformer's attention
outputs, without training.

Beside picture and prompt one token a concept goes through the joint blocks, by the prompt's own
weights. Concepts attend to the picture and to each other; neither picture nor prompt attends to
them, so that the picture is drawn as without. A concept's map is the inner product of its attention
output with each picture token's, before the output's projections: there both are mixtures of the
same values. Not here: masks from the maps (`ml.baselines.daam`).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ml.diffusion.backbones.kinds import backbone_of, denoiser
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.loading import latent_shape
from ml.diffusion.pipeline import Pipeline
from ml.diffusion.sampling import sample
from ml.diffusion.tokens import word_positions
from ml.diffusion.turns import in_turn
from ml.words.phrases import query_text

BACKGROUND = "background"
"""The concept that takes the pixels of no word."""


@in_turn
def concept_products(
    pipe: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    concepts: Sequence[Sequence[str]],
    *,
    steps: int,
    guidance_scale: float,
) -> list[Tensor]:
    """Inner products of the sampling run of each prompt and seed, a block at a time.

    concepts: words of each picture, in its prompt or not. Returns for each picture float32
    (blocks,n_i,h,w), CPU, the mean over steps, on the grid of the picture's tokens. Raises
    ValueError as `sample` and `ConceptTokens`.
    """
    if len(concepts) != len(prompts):
        raise ValueError(
            f"expected one list of concepts a prompt, got {len(concepts)} for {len(prompts)} "
            "prompts"
        )
    tokens = ConceptTokens(pipe, concepts)
    with tokens.taken_along():
        sample(pipe, prompts, seeds, steps=steps, guidance_scale=guidance_scale)
    return tokens.products()


def concept_maps(products: Tensor, blocks: Sequence[int] | None = None) -> Tensor:
    """`concept_products` of a picture, (blocks,n,h,w), as maps (n,h,w) in 0..1: the mean over
    blocks, by default all, and the softmax over concepts, BACKGROUND or the like among them."""
    chosen = products if blocks is None else products[list(blocks)]
    return chosen.mean(dim=0).softmax(dim=0)


class ConceptTokens:
    """Tokens of concepts that go through a transformer's joint blocks beside the picture."""

    def __init__(self, pipe: Pipeline, concepts: Sequence[Sequence[str]]) -> None:
        """concepts: words of each picture, one at least. Raises ValueError for a U-Net, for a
        picture without a concept and for one that the text encoders don't read."""
        self.backbone, network = backbone_of(pipe), cast(Any, denoiser(pipe))
        self.blocks = self.backbone.joint_blocks(network)
        if not self.blocks:
            raise ValueError(
                "ConceptAttention needs a diffusion transformer, in whose blocks picture and text "
                f"attend to each other, and {type(pipe).__name__} has a U-Net with "
                "cross-attention: take DAAM's maps or OVAM's, or a Stable Diffusion 3 or FLUX"
            )
        if not concepts or not all(concepts):
            raise ValueError(f"expected one concept a picture at least, got {list(concepts)}")
        self.side = latent_shape(pipe)[1:]
        self.batch = len(concepts)
        # Pictures of as many concepts go together: a padded one would be attended to.
        self.groups = [
            [row for row, own in enumerate(concepts) if len(own) == count]
            for count in sorted({len(own) for own in concepts})
        ]
        states = _word_states(pipe, sorted({word for own in concepts for word in own}))
        self.embed = network.context_embedder  # called in a pass alone: its weights may wait
        self.start = [
            torch.stack([torch.stack([states[word] for word in concepts[row]]) for row in rows])
            for rows in self.groups
        ]
        self._states: list[Tensor] = []  # of each group (b,n,D), as the last block left them
        self._sums: dict[tuple[int, int], Tensor] = {}  # (block, group) -> (b,n,N)
        self._passes = 0

    def products(self) -> list[Tensor]:
        """Of each picture float32 (blocks,n_i,h,w), CPU: the mean over the passes. Raises
        ValueError before the first."""
        if not self._passes:
            raise ValueError("no pass of the transformer was made within `taken_along`")
        found: dict[int, Tensor] = {}
        for group, rows in enumerate(self.groups):
            own = [self._sums[place, group] / self._passes for place in range(len(self.blocks))]
            stacked = torch.stack(own, dim=1).float().cpu()  # (b,blocks,n,N)
            height, width = self.side
            patch = round((height * width / stacked.shape[-1]) ** 0.5)
            found |= zip(
                rows, stacked.unflatten(-1, (height // patch, width // patch)), strict=True
            )
        return [found[row].clone() for row in range(self.batch)]

    @contextmanager
    def taken_along(self) -> Iterator[None]:
        """Within the block every pass of the transformer takes the concepts along; of a guided
        batch the conditional half counts. Recorders of attention see the picture's own pass alone,
        if they begin within the block, as those of `sample` do."""
        with torch.compiler.set_stance("force_eager"), ExitStack() as stack:
            for place, block in enumerate(self.blocks):
                stack.enter_context(self._observed(place, cast(Any, block)))
            yield

    @contextmanager
    def _observed(self, place: int, block: Any) -> Iterator[None]:
        attention, own = block.attn, block.attn.processor
        outputs: dict[str, Tensor] = {}  # of the attention, before its projections

        def of_picture(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            outputs.setdefault("picture", inputs[0])  # the picture's own pass comes first

        def of_text(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            outputs["text"] = inputs[0]

        def after(module: nn.Module, inputs: Any, output: tuple[Tensor, ...]) -> None:
            if attention.to_add_out is None:  # the last block's text is not projected
                outputs["text"] = output[1]

        def beside(module: nn.Module, inputs: Any, arguments: dict[str, Any], output: Any) -> None:
            observed, attention.processor = attention.processor, own
            try:
                self._pass(place, block, arguments, outputs)
            finally:
                attention.processor = observed
                outputs.clear()

        handles = [
            attention.to_out[0].register_forward_pre_hook(of_picture),
            attention.register_forward_hook(after),
            block.register_forward_hook(beside, with_kwargs=True),
        ]
        if attention.to_add_out is not None:
            handles.append(attention.to_add_out.register_forward_pre_hook(of_text))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _pass(
        self, place: int, block: Any, arguments: dict[str, Any], outputs: dict[str, Tensor]
    ) -> None:
        """The concepts' pass through a block, whose own pass had these arguments."""
        if place == 0:
            with torch.no_grad():
                self._states = [self.embed(texts) for texts in self.start]
            self._passes += 1
        unconditional = len(arguments["hidden_states"]) - self.batch
        for group, rows in enumerate(self.groups):
            chosen = [unconditional + row for row in rows]
            asked = self.backbone.beside(arguments, chosen, self._states[group])
            text, _ = block.forward(**asked)  # not by a call, whose hooks would come here again
            if text is not None:  # the last block gives the text no further
                self._states[group] = text
            concept, picture = outputs["text"].float(), outputs["picture"][chosen].float()
            own = concept @ picture.transpose(1, 2)
            known = self._sums.get((place, group))
            self._sums[place, group] = own if known is None else known + own


@torch.no_grad()
def _word_states(pipe: Pipeline, words: Sequence[str]) -> dict[str, Tensor]:
    """(D,) of each word: the mean of its tokens in "a photograph of a(n) word"."""
    texts = [query_text(word) for word in words]
    hidden = encode_prompts(pipe, texts).hidden
    return {
        word: own[word_positions(pipe, text, word)].mean(dim=0)
        for word, text, own in zip(words, texts, hidden, strict=True)
    }
