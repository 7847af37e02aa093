"""Where a picture responds to a phrase: leave-one-out contrast (like DiffEdit, arXiv 2210.11427).

The denoiser's prediction with the whole prompt minus its prediction with one phrase left out is
large where that phrase is drawn. Not here: how these maps are used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ml.diffusion.backbones.kinds import backbone_of, denoiser
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.latents import add_noise
from ml.diffusion.pipeline import Pipeline, device_of
from ml.diffusion.turns import in_turn
from ml.words.left_out import without_phrase


@dataclass(frozen=True)
class _Pass:
    sample: int
    time: int  # index into the timesteps
    text: str


@torch.no_grad()
def leave_one_out(
    pipe: Pipeline,
    latents: torch.Tensor,
    prompts: Sequence[str],
    phrases: Sequence[Sequence[str]],
    timesteps: Sequence[int],
    seeds: Sequence[int],
    batch_size: int,
) -> list[torch.Tensor]:
    """Contrast maps of the phrases of each prompt, as they stand in it.

    latents: clean (B,C,h,w). Returns for each sample float32 (n_i, T, h, w) >= 0 on the
    pipeline's device: mean over channels of |v(x_t, prompt) - v(x_t, prompt without the
    phrase)|, in units of the velocity v whatever the model predicts, not normalised, unguided: a
    distilled model is told its profile's guidance. T passes for the prompt and T for each phrase,
    at most batch_size at once, from as many samples as fit.
    Raises ValueError for lists of unequal length or a phrase that is not in its prompt.
    """
    lengths = {len(latents), len(prompts), len(phrases), len(seeds)}
    if len(lengths) > 1:
        raise ValueError(
            f"expected as many prompts, phrase lists and seeds as latents; got "
            f"{len(prompts)}, {len(phrases)}, {len(seeds)} for {len(latents)}"
        )
    latents = latents.to(device_of(pipe), torch.float32)
    left = [
        [without_phrase(prompt, phrase, own) for phrase in own]
        for prompt, own in zip(prompts, phrases, strict=True)
    ]
    asked = [[prompt, *texts] if texts else [] for prompt, texts in zip(prompts, left, strict=True)]
    _, found = _predictions(pipe, latents, asked, timesteps, seeds, batch_size)
    process = backbone_of(pipe).process
    scale = [process.to_velocity(pipe.scheduler, t) for t in timesteps]
    maps = []
    for i, texts in enumerate(left):
        own = torch.zeros(len(texts), len(timesteps), *latents.shape[2:], device=latents.device)
        for j, text in enumerate(texts):
            for k in range(len(timesteps)):
                change = found[_Pass(i, k, prompts[i])] - found[_Pass(i, k, text)]
                own[j, k] = change.abs().mean(dim=0) * scale[k]
        maps.append(own)
    return maps


def _predictions(
    pipe: Pipeline,
    latents: torch.Tensor,
    texts: Sequence[Sequence[str]],
    timesteps: Sequence[int],
    seeds: Sequence[int],
    batch_size: int,
) -> tuple[list[torch.Tensor], dict[_Pass, torch.Tensor]]:
    """The latents noised to each timestep, and the denoiser's prediction of every pass: each sample
    under each of its texts at each timestep, equal ones once."""
    noisy = [add_noise(pipe, latents, t, seeds) for t in timesteps]
    passes = list(
        dict.fromkeys(
            _Pass(i, k, text)
            for i, own in enumerate(texts)
            for k in range(len(timesteps))
            for text in own
        )
    )
    made = _predict(pipe, noisy, passes, timesteps, batch_size)
    return noisy, dict(zip(passes, made, strict=True))


@in_turn
def _predict(
    pipe: Pipeline,
    noisy: Sequence[torch.Tensor],
    passes: Sequence[_Pass],
    timesteps: Sequence[int],
    batch_size: int,
) -> list[torch.Tensor]:
    """The denoiser's prediction float32 (C,h,w) of every pass."""
    if not passes:
        return []
    texts = list(dict.fromkeys(one.text for one in passes))
    row = {text: index for index, text in enumerate(texts)}
    encoded = encode_prompts(pipe, texts)
    backbone, network = backbone_of(pipe), denoiser(pipe)
    predictions: list[torch.Tensor] = []
    for start in range(0, len(passes), batch_size):
        batch = passes[start : start + batch_size]
        inputs = torch.stack([noisy[one.time][one.sample] for one in batch])
        times = torch.tensor([timesteps[one.time] for one in batch], device=inputs.device)
        output = backbone.predict(
            pipe, inputs.to(network.dtype), times, encoded[[row[one.text] for one in batch]]
        )
        predictions.extend(output.float().unbind())
    return predictions


@torch.no_grad()
def prediction_errors(
    pipe: Pipeline,
    latents: torch.Tensor,
    texts: Sequence[Sequence[str]],
    timesteps: Sequence[int],
    seeds: Sequence[int],
    batch_size: int,
) -> list[torch.Tensor]:
    """The error of the denoiser's prediction of a picture's noise under each of its texts.

    latents: clean (B,C,h,w); texts: n_i for each, "" included if wanted. Returns for each sample
    float32 (n_i,T,h,w) >= 0 on the pipeline's device: the squared error of v summed over channels,
    in units of the velocity v whatever the model predicts, with the same noise for all texts of a
    picture.
    n_i * T passes, at most batch_size at once. Raises ValueError for lists of unequal length, and
    for a timestep at which there is no noise (0 of rectified flow).
    """
    if len({len(latents), len(texts), len(seeds)}) > 1:
        raise ValueError(
            f"expected as many text lists and seeds as latents; got {len(texts)}, "
            f"{len(seeds)} for {len(latents)}"
        )
    process = backbone_of(pipe).process
    shares = [process.shares(pipe.scheduler, t) for t in timesteps]
    if clean := [t for t, (_, rest) in zip(timesteps, shares, strict=True) if rest == 0]:
        raise ValueError(
            f"timesteps: expected some with noise, whose prediction can be wrong, got {clean}, at "
            "which this model has none: leave them out or take larger ones"
        )
    latents = latents.to(device_of(pipe), torch.float32)
    noisy, found = _predictions(pipe, latents, texts, timesteps, seeds, batch_size)
    scale = [process.to_velocity(pipe.scheduler, t) for t in timesteps]
    errors = []
    for i, own in enumerate(texts):
        maps = torch.zeros(len(own), len(timesteps), *latents.shape[2:], device=latents.device)
        for k, (t, (signal, rest)) in enumerate(zip(timesteps, shares, strict=True)):
            noise = (noisy[k][i] - signal * latents[i]) / rest
            true = process.target(pipe.scheduler, latents[i], noise, t)
            for j, text in enumerate(own):
                wrong = (found[_Pass(i, k, text)] - true) * scale[k]
                maps[j, k] = wrong.square().sum(dim=0)
        errors.append(maps)
    return errors
