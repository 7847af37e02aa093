"""What is trained for a row of a study: the pipeline's own module with some settings changed."""

from dataclasses import asdict, dataclass, replace

from ml.grounding.training import TEXT_DROPOUT
from ml.words.vocabulary import Vocabulary, load_vocabulary


@dataclass(frozen=True)
class Spec:
    """A row: what differs from the pipeline's own module. All defaults: that module, split 1."""

    vocabulary: str = "voc-1"
    variant: str = "seeded"  # or paper
    place: int = 0  # of the kept latents: sizes.FRACTIONS of the denoising steps from the last
    empty_masks: bool = False  # words without a mask have an empty one as target
    seen: int | None = None  # only the first so many seen classes; all others are unseen
    pictures: int | None = None  # only so many training pictures
    resolutions: tuple[int, ...] | None = None  # of the U-Net's features
    text_dropout: float = TEXT_DROPOUT
    settles: bool = True  # the evidence has a say between words when masks are made
    labels: str = "detector"  # or exact masks of drawn scenes: noised, inverted
    learned_upsampling: bool | None = None  # of the map, by convolutions; None: as the variant is
    blocks: tuple[int, ...] | None = None  # of the denoiser, whose features alone are given
    lone_block: bool = True  # features of one resolution pass a block of convolutions
    longer: int = 1  # times the profile's training steps, and its steps between validations

    @property
    def name(self) -> str:
        """Of its files: what differs, in words."""
        own = asdict(Spec())
        parts = [f"{key}-{value}" for key, value in asdict(self).items() if value != own[key]]
        return "_".join(parts).translate(str.maketrans("(), ", "....")) or "default"

    @property
    def few(self) -> bool:
        """Fewer seen classes than a split has: pictures of those alone are drawn for it."""
        return self.seen is not None and self.seen < len(load_vocabulary(self.vocabulary).seen)

    @property
    def trained(self) -> "Spec":
        """The specification of its training: `settles` only matters afterwards."""
        return replace(self, settles=True)


def vocabulary_of(spec: Spec) -> Vocabulary:
    """Its seen and unseen classes, of all 20."""
    own = load_vocabulary(spec.vocabulary)
    if spec.seen is None:
        return own
    seen = own.seen[: spec.seen]
    return replace(own, seen=seen, unseen=tuple(c for c in own.classes if c not in seen))
