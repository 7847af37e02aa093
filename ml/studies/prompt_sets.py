"""The prompts, and the classes of drawn scenes, that the studies share.

One set of pictures serves all splits: it is made over all 20 classes, and a split trains on the
pictures of its seen classes alone. How many of each: `sizes`.
"""

from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np

from ml.drawn_world.captions import PLACES, TEMPLATES
from ml.drawn_world.shapes import MAIN_COLOURS
from ml.drawn_world.shapes_background import choose_background
from ml.grounding.prompting import compose_prompt
from ml.settings.sections import PromptParams
from ml.studies.sizes import SPLITS, Size
from ml.words.balance import balanced_pairs, balanced_singles
from ml.words.phrases import phrase
from ml.words.prompts import make_prompts
from ml.words.vocabulary import Vocabulary, load_vocabulary


@cache
def all_classes() -> Vocabulary:
    """All 20 classes as seen ones, for what is made once for all splits."""
    split = load_vocabulary(SPLITS[0])
    return Vocabulary("all", split.classes, (), split.words)


def word_of(name: str) -> str:
    """The word of a class that plain prompts use."""
    return all_classes().words[name][0]


def training_prompts(size: Size, seed: int) -> list[dict]:
    """Prompts of one and two objects over all classes, as the stage `prompts` makes them."""
    return prompts_of("train", seed, train_one=size.train_one, train_two=size.train_two)


def few_class_prompts(size: Size, seen: int, seed: int) -> list[dict]:
    """As many prompts over the first so many seen classes of split 1 as `Size.fixed`."""
    split = load_vocabulary(SPLITS[0])
    chosen = Vocabulary(f"first-{seen}", split.seen[:seen], (), split.words)
    one = size.fixed * size.train_one // (size.train_one + size.train_two)
    return prompts_of("train", seed, chosen, train_one=one, train_two=size.fixed - one)


def synthetic_prompts(size: Size, seed: int) -> list[dict]:
    """Protocol II's sets of one and of two objects, `Size.synthetic` of each."""
    return prompts_of("synthetic", seed, synthetic_one=size.synthetic, synthetic_two=size.synthetic)


def rich_prompts(size: Size, seed: int) -> list[dict]:
    """The paper's "complicated prompts": `Size.synthetic`, half of one object and half of two.

    All that the drawn world's captions can say: any word of a class, a colour for half of the
    objects that have one, every template equally often ("left of", "near"), and a place.
    """
    rng, vocabulary = np.random.default_rng([seed, 2]), all_classes()
    classes = vocabulary.classes
    one = size.synthetic // 2
    chosen = [(name,) for name in balanced_singles(rng, classes, one)]
    chosen += balanced_pairs(rng, classes, classes, size.synthetic - one)
    return [
        _rich(rng, f"rich-{i:06d}", {name: vocabulary.words[name] for name in names}, seed)
        for i, names in enumerate(chosen)
    ]


def _rich(rng: np.random.Generator, key: str, names: dict[str, tuple[str, ...]], seed: int) -> dict:
    words = [str(rng.choice(known)) for known in names.values()]
    colours = [
        str(rng.choice(MAIN_COLOURS[name])) if name in MAIN_COLOURS and rng.random() < 0.5 else None
        for name in names
    ]
    phrases = [phrase(*pair) for pair in zip(words, colours, strict=True)]
    template, _ = TEMPLATES[len(names)][rng.integers(len(TEMPLATES[len(names)]))]
    text = template.format(**dict(zip("AB", phrases, strict=False)))
    place = PLACES.get(choose_background(rng, tuple(names)))
    number = np.random.SeedSequence([seed, int(key[-6:]), 8]).generate_state(1)[0]
    return {
        "key": key,
        "text": f"{text} {place}" if place else text,
        "entities": list(names),
        "words": words,
        "phrases": phrases,
        "seed": int(number),
        "purpose": "synthetic",
    }


def prompts_of(
    purpose: str, seed: int, vocabulary: Vocabulary | None = None, **counts
) -> list[dict]:
    """Prompts of one purpose, as the stage `prompts` makes them; counts: fields of PromptParams."""
    none = dict.fromkeys(
        ("train_one", "train_two", "sim_per_cell", "synthetic_one", "synthetic_two"), 0
    )
    wanted = PromptParams(
        **none | counts, plain_share=0.6, attribute_share=0.0, scene_share=0.0, texts=None
    )
    made, _ = make_prompts(vocabulary or all_classes(), wanted, seed)
    return [prompt for prompt in made if prompt["purpose"] == purpose]


def judged_prompts(size: Size, seed: int) -> list[dict]:
    """Protocol I's prompts: "a photograph of ...", every class, every pair, and more of the pairs
    that are unseen in a split."""
    chosen = combinations_of(size.sim_one, size.sim_pair, size.sim_unseen_pair, seed)
    return [plain_prompt(f"sim-{i:06d}", names, seed) for i, names in enumerate(chosen)]


def drawn_classes(size: Size, seed: int) -> list[tuple[str, ...]]:
    """The classes of each drawn scene that Protocol III judges on."""
    return combinations_of(size.real_one, size.real_pair, size.real_unseen_pair, seed)


def drawn_training_classes(size: Size, seed: int) -> list[tuple[str, ...]]:
    """The classes of each drawn scene to train on: split 1's seen ones, one or two objects."""
    seen, rng = load_vocabulary(SPLITS[0]).seen, np.random.default_rng([seed, 1])
    one = size.real_train * size.train_one // (size.train_one + size.train_two)
    singles = [(str(name),) for name in np.resize(rng.permutation(seen), one)]
    return singles + balanced_pairs(rng, seen, seen, size.real_train - one)


def combinations_of(one: int, pair: int, unseen_pair: int, seed: int) -> list[tuple[str, ...]]:
    """Each class `one` times, each pair `pair` times and `unseen_pair` times more those that are
    unseen together in a split, either order equally likely."""
    rng = np.random.default_rng([seed, 0])
    classes = all_classes().classes
    unseen = [
        pair_ for name in SPLITS for pair_ in combinations(sorted(load_vocabulary(name).unseen), 2)
    ]
    pairs = list(combinations(classes, 2)) * pair + unseen * unseen_pair
    return [(name,) for name in classes] * one + [
        pair_[::-1] if rng.random() < 0.5 else pair_ for pair_ in pairs
    ]


def plain_prompt(key: str, names: Sequence[str], seed: int) -> dict:
    """Protocol I's prompt of some classes; the key ends in its number of six digits."""
    words = [word_of(name) for name in names]
    number = np.random.SeedSequence([seed, int(key[-6:]), 7]).generate_state(1)[0]
    return {
        "key": key,
        "text": compose_prompt(words),
        "entities": list(names),
        "words": words,
        "phrases": [phrase(word) for word in words],
        "seed": int(number),
        "purpose": "sim",
    }
