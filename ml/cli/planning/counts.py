"""How many pictures and named objects a run makes."""

from dataclasses import dataclass, replace

from ml.settings.params import Params
from ml.words.vocabulary import Vocabulary


@dataclass(frozen=True)
class Counts:
    """Pictures and named objects of a run."""

    train: int
    sim: int
    synthetic: int
    image_words: int  # objects named in train and sim
    synthetic_words: int

    @property
    def images(self) -> int:
        return self.train + self.sim


def with_images(params: Params, images: int) -> Params:
    """The settings with so many synthetic pictures, one and two objects in the old proportion."""
    if images < 1:
        raise ValueError(f"--images: expected 1 or more, got {images}")
    old = params.prompts
    total = old.synthetic_one + old.synthetic_two
    one = round(images * old.synthetic_one / total) if total else images // 2
    return replace(params, prompts=replace(old, synthetic_one=one, synthetic_two=images - one))


def counts_of(params: Params, vocabulary: Vocabulary) -> Counts:
    """How many pictures the stage `prompts` will ask for."""
    wanted, seen, unseen = params.prompts, len(vocabulary.seen), len(vocabulary.unseen)
    one = [seen >= 1, unseen >= 1]
    two = [seen >= 2, seen >= 1 and unseen >= 1, unseen >= 2]
    return Counts(
        train=wanted.train_one + wanted.train_two,
        sim=wanted.sim_per_cell * sum(one + two),
        synthetic=wanted.synthetic_one + wanted.synthetic_two,
        image_words=wanted.train_one
        + 2 * wanted.train_two
        + wanted.sim_per_cell * (sum(one) + 2 * sum(two)),
        synthetic_words=wanted.synthetic_one + 2 * wanted.synthetic_two,
    )
