"""Draws a picture and masks the words of its prompt.

In the checkout:

    python -m examples.draw_and_segment --prompt "a photograph of a dog and a cat" --words dog cat
"""

import argparse
from pathlib import Path

from PIL import Image

from ml import GroundedDiffusionPipeline


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", default="data/micro/grounding_model")
    parser.add_argument("--prompt", default="a photograph of a dog and a cat")
    parser.add_argument("--words", nargs="+", default=["dog", "cat"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    asked = parser.parse_args()

    pipe = GroundedDiffusionPipeline.from_pretrained(asked.folder, device="auto")
    out = pipe(asked.prompt, entities=asked.words, seed=asked.seed)

    asked.out.mkdir(parents=True, exist_ok=True)
    out.images[0].save(asked.out / "picture.png")
    for word, mask in out.masks[0].items():
        Image.fromarray(mask).save(asked.out / f"{word}.png")
        print(f"{word}: {mask.mean():.0%} of the picture")


if __name__ == "__main__":
    main()
