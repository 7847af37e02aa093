"""Draws a picture for every class of a vocabulary of yours, and masks the class in it.

In the checkout:

    python -m examples.own_vocabulary --vocabulary farm.yaml

after these two lines are written to farm.yaml:

    seen: [cow, sheep]
    unseen: [horse]
"""

import argparse

from ml import GroundedDiffusionPipeline, load_vocabulary
from ml.grounding.prompting import compose_prompt


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", default="data/micro/grounding_model")
    parser.add_argument("--vocabulary", default="voc-1", help="a name, or the path of a YAML file")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    vocabulary = load_vocabulary(asked.vocabulary)
    words = [vocabulary.words[name][0] for name in vocabulary.classes]
    pipe = GroundedDiffusionPipeline.from_pretrained(asked.folder, device="auto")
    out = pipe(
        [compose_prompt([word]) for word in words],
        entities=[[word] for word in words],
        seed=asked.seed,
    )
    for name, word, masks in zip(vocabulary.classes, words, out.masks, strict=True):
        kind = "seen" if name in vocabulary.seen else "unseen"
        print(f"{name} ({kind}): {masks[word].mean():.0%} of its picture")


if __name__ == "__main__":
    main()
