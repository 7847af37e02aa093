"""Finds words in a picture of yours; words that are not in it stay empty.

In the checkout:

    python -m examples.ground_a_picture picture.png --words dog bus
"""

import argparse
from pathlib import Path

from ml import GroundedDiffusionPipeline


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    parser.add_argument("--words", nargs="+", default=["dog", "bus"])
    parser.add_argument("--folder", default="data/micro/grounding_model")
    parser.add_argument("--min-presence", type=float, default=0.01)
    asked = parser.parse_args()

    pipe = GroundedDiffusionPipeline.from_pretrained(asked.folder, device="auto")
    found = pipe.ground(asked.picture, entities=asked.words, min_presence=asked.min_presence)

    for word, mask in found.masks[0].items():
        print(f"{word}: presence {found.presence[0][word]:.3f}, {mask.mean():.0%} of the picture")


if __name__ == "__main__":
    main()
