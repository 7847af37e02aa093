"""Draw: pictures of a prompt, with masks of its words, their presence, and DAAM's maps beside them.

One sampling run gives the picture, the module's features and DAAM's maps.
"""

from typing import Any

from ml.app.answers import Answer, Told, Word, words_in, words_of
from ml.app.models import Models
from ml.baselines.daam import expand_as
from ml.diffusion.sampling import sample
from ml.diffusion.tokens import text_limit
from ml.grounding.arguments import DRAWING, SEED, number, seeds_of
from ml.grounding.presence import presence
from ml.grounding.prompting import ask
from ml.words.phrases import query_text

MOST_PICTURES = 4
MOST_STEPS = 100


def draw(
    models: Models, prompt: str, words: str, seed: int, steps: int, count: int, told: Told
) -> list[Answer]:
    """`count` pictures, the first of `seed`, the next ones of the numbers after it.

    words: as they stand in the prompt, separated by commas; "" takes the vocabulary's. Raises
    ValueError for what cannot be drawn, ManifestError where there is no finished grounding module.
    """
    prompt = " ".join((prompt or "").split())
    if not prompt:
        raise ValueError("no prompt: type what is to be drawn, such as: a photograph of a dog")
    named = words_of(words) if (words or "").strip() else words_in(prompt, models.vocabulary)
    first, steps = (
        number("seed", seed, SEED),
        number("steps", steps, DRAWING["num_inference_steps"]),
    )
    if not 1 <= count <= MOST_PICTURES or steps > MOST_STEPS:
        raise ValueError(
            f"expected 1 to {MOST_PICTURES} pictures in 2 to {MOST_STEPS} steps, got {count} in "
            f"{steps}"
        )
    seeds = seeds_of(first, None, count)
    asked = ask([named] * count, [prompt] * count)

    def step(pipe: Any, place: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        told(0.8 * (place + 1) / steps, f"Drawing: step {place + 1} of {steps}")
        return tensors

    told(0.0, "Waiting for the models")
    with models.lock:
        opened, engine = models.grounding()
        limit = text_limit(engine.pipe)
        limit.refuse([prompt, *map(query_text, named)])
        made = sample(
            engine.pipe,
            [prompt] * count,
            seeds,
            steps=steps,
            guidance_scale=opened.guidance_scale or models.params.diffusion.guidance_scale,
            words=[named] * count,
            features=True,
            callback=step,
        )
        assert made.features is not None and made.daam is not None  # both were asked for
        told(0.82, "Finding the words")
        found = engine.ground_features(
            made.features,
            made.images,
            [own.prompt for own in asked],
            [own.words for own in asked],
            [own.phrases for own in asked],
            seeds,
        )
        told(0.9, "Asking whether they are there")
        scores = presence(engine.pipe, made.images, [named] * count, batches=engine.batches)
        threshold = models.daam_threshold()
    answers = []
    for place, own in enumerate(seeds):
        heat = expand_as(made.daam[place].numpy(), made.images.shape[1:3])
        every = [
            Word(
                word,
                found.masks[place][i],
                found.probabilities[place][i],
                float(scores[place][i]),
                heat[i],
                heat[i] > threshold,
            )
            for i, word in enumerate(named)
        ]
        answers.append(Answer(made.images[place], f"{prompt}, seed {own}", every))
    return answers
