"""At which noise levels the micro transformer loses what a picture shows.

    python -m benchmarks.noise_levels --pictures 80

Drawn scenes of two classes, never trained on, are noised to a level and denoised from there under
their words. Prints a Markdown row a level: the share in which the judge sees exactly both. Where
the share falls from one level to the next, the model draws something else than what was there.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from ml.arguments import number
from ml.errors import exit_path
from ml.foundation.batches import classification_figures, to_pixels
from ml.foundation.judge import load_judge
from ml.foundation.measure import drawn_classes
from ml.foundation.measure_pictures import GUIDANCE, STEPS, load_transformer
from ml.foundation.scenes import fresh_scenes
from ml.foundation.train_transformer import ABSENT
from ml.words.phrases import phrase
from ml.words.vocabulary import synonyms

LEVELS = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
FOLDER = Path("data/foundation/micro")


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=number(int, 1), default=80)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the micro checkpoints")
    chosen = parser.parse_args(argv)
    count = chosen.pictures
    pipe, judge = load_transformer(chosen.folder), load_judge(chosen.folder / "judge")
    pipe.set_progress_bar_config(disable=True)
    scenes = [s for s in fresh_scenes(20 * count) if len(set(s.classes)) == len(s.classes) == 2]
    scenes = scenes[:count]
    words = [[phrase(synonyms()[name][0]) for name in scene.classes] for scene in scenes]
    prompts = [f"a photograph of {first} and {second}" for first, second in words]
    pixels = to_pixels(np.stack([scene.image for scene in scenes]))
    x_0 = pipe.vae.encode(pixels * 2 - 1).latent_dist.mode()
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    print(f"| from | exactly both, % of {len(scenes)} |\n|---|---|")
    for level in LEVELS:
        output = pipe(
            prompts,
            latents=(1 - level) * x_0 + level * noise,
            sigmas=np.linspace(level, level / STEPS, STEPS).tolist(),
            guidance_scale=GUIDANCE,
            max_sequence_length=ABSENT,
            output_type="np",
        )
        seen = judge.judge((output.images * 255).round().astype(np.uint8))
        figures = classification_figures(torch.from_numpy(seen), drawn_classes(scenes))
        print(f"| σ {level} | {figures['exact_set']:.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(exit_path(main)())
