"""Where a picture responds to a phrase: leave-one-out contrast (like DiffEdit, arXiv 2210.11427).

The U-Net's prediction with the whole prompt minus its prediction with one phrase left out is large
where that phrase is drawn. Not here: how these maps are used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ml.diffusion.encoding import encode_prompts
from ml.diffusion.latents import add_noise, signal_shares
from ml.diffusion.pipeline import Pipeline
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
    phrase)|, in units of v whatever the model predicts, not normalised, unguided. T passes for
    the prompt and T for each phrase, at most batch_size at once, from as many samples as fit.
    Raises ValueError for lists of unequal length or a phrase that is not in its prompt.
    """
    lengths = {len(latents), len(prompts), len(phrases), len(seeds)}
    if len(lengths) > 1:
        raise ValueError(
            f"expected as many prompts, phrase lists and seeds as latents; got "
            f"{len(prompts)}, {len(phrases)}, {len(seeds)} for {len(latents)}"
        )
    latents = latents.to(pipe.device, torch.float32)
    left = [
        [without_phrase(prompt, phrase, own) for phrase in own]
        for prompt, own in zip(prompts, phrases, strict=True)
    ]
    asked = [[prompt, *texts] if texts else [] for prompt, texts in zip(prompts, left, strict=True)]
    _, found = _predictions(pipe, latents, asked, timesteps, seeds, batch_size)
    scale = _to_v(pipe, timesteps)
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
    """The latents noised to each timestep, and the U-Net's prediction of every pass: each sample
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


def _predict(
    pipe: Pipeline,
    noisy: Sequence[torch.Tensor],
    passes: Sequence[_Pass],
    timesteps: Sequence[int],
    batch_size: int,
) -> list[torch.Tensor]:
    """The U-Net's prediction float32 (C,h,w) of every pass."""
    if not passes:
        return []
    texts = list(dict.fromkeys(one.text for one in passes))
    row = {text: index for index, text in enumerate(texts)}
    encoded = encode_prompts(pipe, texts)
    predictions: list[torch.Tensor] = []
    for start in range(0, len(passes), batch_size):
        batch = passes[start : start + batch_size]
        inputs = torch.stack([noisy[one.time][one.sample] for one in batch])
        times = torch.tensor([timesteps[one.time] for one in batch], device=inputs.device)
        (output,) = pipe.unet(
            inputs.to(pipe.unet.dtype),
            times,
            return_dict=False,
            **encoded[[row[one.text] for one in batch]].kwargs,
        )
        predictions.extend(output.float().unbind())
    return predictions


def _to_v(pipe: Pipeline, timesteps: Sequence[int]) -> list[float]:
    """The factor that turns a difference of predictions at a timestep into a difference of v.

    v = sqrt(a) e - sqrt(1-a) x0 and x_t = sqrt(a) x0 + sqrt(1-a) e with x_t fixed, so that
    dv = de / sqrt(a) = -dx0 / sqrt(1-a).
    """
    kind, shares = pipe.scheduler.config.prediction_type, signal_shares(pipe)
    factors: dict[str, Callable[[float], float]] = {
        "v_prediction": lambda a: 1.0,
        "epsilon": lambda a: float(a**-0.5),
        "sample": lambda a: float((1 - a) ** -0.5),
    }
    if kind not in factors:
        raise ValueError(f"prediction_type: expected one of {sorted(factors)}, got {kind!r}")
    return [factors[kind](float(shares[t])) for t in timesteps]


@torch.no_grad()
def prediction_errors(
    pipe: Pipeline,
    latents: torch.Tensor,
    texts: Sequence[Sequence[str]],
    timesteps: Sequence[int],
    seeds: Sequence[int],
    batch_size: int,
) -> list[torch.Tensor]:
    """The error of the U-Net's prediction of a picture's noise under each of its texts.

    latents: clean (B,C,h,w); texts: n_i for each, "" included if wanted. Returns for each sample
    float32 (n_i,T,h,w) >= 0 on the pipeline's device: the squared error of v summed over channels,
    in units of v whatever the model predicts, with the same noise for all texts of a picture.
    n_i * T passes, at most batch_size at once. Raises ValueError for lists of unequal length.
    """
    if len({len(latents), len(texts), len(seeds)}) > 1:
        raise ValueError(
            f"expected as many text lists and seeds as latents; got {len(texts)}, "
            f"{len(seeds)} for {len(latents)}"
        )
    latents = latents.to(pipe.device, torch.float32)
    noisy, found = _predictions(pipe, latents, texts, timesteps, seeds, batch_size)
    scale, shares = _to_v(pipe, timesteps), signal_shares(pipe)
    errors = []
    for i, own in enumerate(texts):
        maps = torch.zeros(len(own), len(timesteps), *latents.shape[2:], device=latents.device)
        for k, t in enumerate(timesteps):
            true = _target(pipe, latents[i], noisy[k][i], float(shares[t]))
            for j, text in enumerate(own):
                wrong = (found[_Pass(i, k, text)] - true) * scale[k]
                maps[j, k] = wrong.square().sum(dim=0)
        errors.append(maps)
    return errors


def _target(pipe: Pipeline, clean: torch.Tensor, noisy: torch.Tensor, share: float) -> torch.Tensor:
    """What the U-Net should predict for a noised latent whose clean one is known."""
    noise = (noisy - share**0.5 * clean) / (1 - share) ** 0.5
    targets: dict[str, torch.Tensor] = {
        "epsilon": noise,
        "sample": clean,
        "v_prediction": share**0.5 * noise - (1 - share) ** 0.5 * clean,
    }
    return targets[pipe.scheduler.config.prediction_type]
