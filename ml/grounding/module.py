"""The grounding module: features of a picture and words in, a mask for every word out."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ml.compute.weights import fill
from ml.grounding.config import GroundingConfig
from ml.grounding.encoder import LearnedUpsampling, VisualEncoder
from ml.grounding.fusion import (
    DecoderLayer,
    EvidenceSeed,
    allowed_pairs,
    apply_prior,
    evidence_prior,
    pooling_weights,
    start_as_the_authors,
)
from ml.store.files import atomic

PADDED = -1e4
"""Logit of a padded word: no share of any pixel, and finite, so that 0 times it is 0."""


class GroundingModule(nn.Module):
    """`paper`, the authors': a query is a word's text embedding, words are independent sigmoids.

    `seeded`: a query is the text embedding plus the visual tokens pooled by the word's evidence;
    the words of a picture and its background (a learned query) share each pixel by softmax. In eval
    mode the evidence is also a prior on which word a pixel belongs to (`evidence_prior`): a module
    finds both of two unseen objects but mixes them up, and the evidence does not.
    """

    def __init__(self, config: GroundingConfig) -> None:
        super().__init__()
        self.config = config
        self.uses_prior = config.competition  # may be switched off, to measure what it is worth
        width = config.width
        self.encoder = VisualEncoder(
            config.feature_channels,
            config.encoder_widths,
            config.normalisation,
            config.biased_blocks,
            config.standardised,
            config.lone_block,
        )
        fused = self.encoder.out_channels
        self.to_k = nn.Linear(fused * config.patch**2, width, bias=False)
        self.to_q = nn.Linear(config.text_width, width, bias=False)
        layers = [DecoderLayer(width, config.heads) for _ in range(config.layers)]
        self.layers = nn.ModuleList(layers)
        self.mask_embedding = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, config.pixel_width),
        )
        self.upsampling = (
            LearnedUpsampling(fused, config.pixel_width, config.learned_doublings)
            if config.learned_doublings
            else nn.Identity()
        )
        if not config.competition:
            start_as_the_authors(layers)
        if config.competition:
            self.seed = EvidenceSeed(width)
            self.background = nn.Parameter(torch.randn(width) * width**-0.5)

    def forward(
        self,
        features: Mapping[int, Tensor],
        text: Tensor,
        valid: Tensor,
        evidence: Tensor | None = None,
    ) -> Tensor:
        """Logits of every word at picture size.

        features: {r: (B,C_r,r,r)} of any float dtype; text: float (B,N,D) word embeddings;
        valid: bool (B,N), False for padding; evidence: float >= 0 (B,N,E,h,w), seeded only.
        Returns float32 (B,N,H,W) for `paper`; (B,N+1,H,W) for `seeded`, background first, to be
        read by softmax. Raises ValueError when `seeded` has no evidence.
        """
        if self.config.competition and evidence is None:
            raise ValueError(
                "the seeded variant expects evidence (B,N,E,h,w), got None: compute "
                "ml.diffusion.evidence.leave_one_out, or train the paper variant"
            )
        fused = self.encoder(features)
        tokens = self._tokens(fused)
        queries, shown = self._queries(tokens, text.float(), valid, evidence)
        allowed = allowed_pairs(shown)
        for layer in self.layers:
            queries = layer(queries, tokens, allowed)
        pixels = self.upsampling(fused)
        logits = torch.einsum("bnc,bchw->bnhw", self.mask_embedding(queries), pixels)
        if self.config.scaled_logits:
            logits = logits * self.config.pixel_width**-0.5
        size = self.config.picture_size
        if logits.shape[-1] != size:  # the same as upsampling the map first, as the paper does
            logits = F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)
        if self.uses_prior and evidence is not None and not self.training:
            words = logits[:, 1:].masked_fill(~valid[:, :, None, None], PADDED)
            words = apply_prior(words, evidence_prior(evidence, valid, size))
            logits = torch.cat([logits[:, :1], words], dim=1)
        return logits.masked_fill(~shown[:, :, None, None], PADDED)

    def _tokens(self, fused: Tensor) -> Tensor:
        """(B,C,R,R) -> (B,(R/patch)^2,width), row by row."""
        patches = F.unfold(fused, self.config.patch, stride=self.config.patch)
        tokens: Tensor = self.to_k(patches.transpose(1, 2))
        return tokens

    def _queries(
        self, tokens: Tensor, text: Tensor, valid: Tensor, evidence: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Queries (B,N or N+1,width) and which of them are not padding."""
        queries: Tensor = self.to_q(text)
        if not self.config.competition or evidence is None:
            return queries, valid
        side = int(tokens.shape[1] ** 0.5)
        queries = queries + self.seed(tokens, pooling_weights(evidence, valid, side))
        background = self.background.expand(len(queries), 1, -1)
        shown = torch.cat([torch.ones_like(valid[:, :1]), valid], dim=1)
        return torch.cat([background, queries], dim=1), shown

    def save_pretrained(self, folder: Path | str) -> None:
        """Writes config.json and model.safetensors."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / "config.json")
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        with atomic(folder / "model.safetensors") as temporary:
            save_file(tensors, temporary)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "GroundingModule":
        """The module in a folder, in eval mode. Raises ValueError when there is none,
        or its weights are damaged or not all its own."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"no config.json in {folder}: expected the folder of a grounding "
                "module; run the stage grounding_model first"
            )
        module = cls(GroundingConfig.load(folder / "config.json"))
        fill(module, _tensors(folder / "model.safetensors"), str(folder))
        return module.eval()


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{file} is missing or damaged ({error}): run the stage grounding_model again"
        ) from error


def probabilities(logits: Tensor, config: GroundingConfig) -> Tensor:
    """Logits of `forward` to float32 (B,N,H,W) in 0..1, one map a word, background left out."""
    if config.competition:
        return logits.float().softmax(1)[:, 1:]
    return logits.float().sigmoid()


def masks_from_logits(logits: Tensor, config: GroundingConfig) -> Tensor:
    """Logits of `forward` to bool (B,N,H,W).

    With competition, the places where the word beats the background and all other words; else
    those with a probability above 0.5.
    """
    if not config.competition:
        return logits > 0
    words = torch.arange(1, logits.shape[1], device=logits.device)
    return logits.argmax(1, keepdim=True) == words[None, :, None, None]
