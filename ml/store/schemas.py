"""The columns of every data set, as pyarrow schemas: what stages hand to each other.

Pixels are encoded bytes (PNG); everything else is a *fact* that a check can judge without
touching a pixel.
"""

import pyarrow as pa

_text, _int, _real = pa.string(), pa.int64(), pa.float64()
_flag, _bytes, _texts = pa.bool_(), pa.binary(), pa.list_(pa.string())

# Shared by prompts, images and synthetic_dataset: what was asked for.
_PROMPT = [
    ("key", _text),  # unique, e.g. "train-000012"; sorts in the order of making
    ("text", _text),  # the whole prompt
    ("entities", _texts),  # class names, in the order of the text; distinct
    ("words", _texts),  # the word that names each entity in the text ("dining table")
    ("phrases", _texts),  # what is left out for the contrast, e.g. "a dining table"; in the text
    ("seed", _int),  # of this picture's initial noise; unique over all prompts
    ("purpose", _text),  # train, sim or synthetic
    ("cell", _text),  # one_seen, one_unseen, two_seen, two_mixed or two_unseen
]
PROMPTS = pa.schema(_PROMPT)

# Facts of one picture (ml.images.facts.picture_facts).
_PICTURE = [
    ("width", _int),
    ("height", _int),
    ("mean", _real),  # grey level 0..255
    ("std", _real),  # of the grey levels; a blank picture has about 0
    ("entropy", _real),  # bits, of the grey-level histogram, 0..8
    ("sharpness", _real),  # variance of the Laplacian of the grey levels
    ("dhash", _text),  # 64-bit difference hash, 16 hex digits
    ("sha256", _text),  # of the decoded pixels
]
IMAGES = pa.schema(
    _PROMPT
    + [
        ("image", _bytes),  # PNG, RGB
        ("latent", _bytes),  # float32 (C,h,w), C order: before the last denoising step
        ("latent_shape", pa.list_(_int)),
        ("timestep", _int),  # of that latent, 0..999
        ("daam", _bytes),  # float16 (n_entities,h,w): DAAM heat map of each word, summed over steps
        ("daam_shape", pa.list_(_int)),
    ]
    + _PICTURE
)

# One row per picture and entity named in its prompt.
MASKS = pa.schema(
    [
        ("key", _text),
        ("entity", _text),
        ("word", _text),
        ("purpose", _text),
        ("cell", _text),
        ("role", _text),  # labeller (seen classes only) or oracle (judges the sim set)
        ("found", _flag),
        ("score", _real),  # best detection of the class, 0 when none
        ("instances", _int),  # detections merged into the mask
        ("area", _real),  # share of the picture
        ("x0", _real),
        ("y0", _real),
        ("x1", _real),
        ("y1", _real),  # box, pixels; 0 when none
        ("rle", _text),  # JSON {"size": [h, w], "counts": str} of pycocotools; "" when none
    ]
)

# One row per picture and entity: the filter's verdict. Masks of accepted rows are never empty.
TRIPLETS = pa.schema(
    [
        ("key", _text),
        ("text", _text),
        ("entity", _text),
        ("word", _text),
        ("phrase", _text),
        ("purpose", _text),  # of the picture's prompt, or labelled: a user's own, that has none
        ("cell", _text),  # "" of a user's own
        ("subset", _text),  # train, validation (early stopping; seen only), sim, or labelled:
        # a user's own picture, which is trained on, and judges nothing
        ("accepted", _flag),
        ("reason", _text),  # "" when accepted, else one of ml.pipeline.stages.triplets.REASONS, of
        # a user's own ml.pipeline.labelled_rows.REASONS
        ("score", _real),
        ("area", _real),
        ("std", _real),  # of the picture
        ("dhash", _text),
        ("rle", _text),
    ]
)


# One row per picture that a user brought with its masks (`triplets.labels`): triplets/labelled.
LABELLED = pa.schema(
    [
        ("key", _text),  # "own-000012"
        ("source", _text),  # its name in the user's data
        ("text", _text),  # the prompt that its words are composed into; "" without words
        ("entities", _texts),  # the vocabulary's classes in it, in label order
        ("words", _texts),
        ("phrases", _texts),
        ("strangers", _texts),  # classes of the user's data in it that the vocabulary lacks
        ("seed", _int),  # of the noise that its features are taken under
        ("image", _bytes),  # PNG, RGB, of the profile's picture size
        ("rles", _texts),  # per entity; "" where the crop left nothing of it
        ("areas", pa.list_(_real)),  # per entity, share of the picture
        ("ignored", _text),  # run-length mask of pixels that nothing is learned from; "" for none
        ("benchmark_overlap", _flag),  # the picture is, or nearly is, one of the benchmark's
        ("too_many_words", _flag),  # its prompt is longer than the model reads
    ]
    + _PICTURE
)

# One row per generated and labelled picture.
SYNTHETIC = pa.schema(
    _PROMPT
    + [
        ("image", _bytes),  # PNG, RGB
        ("label", _bytes),  # PNG, grey: 0 background, i+1 for class i, 255 ignored
        ("rles", _texts),  # per entity, before overlaps were resolved
        ("areas", pa.list_(_real)),  # per entity, share of the picture in the label map
        ("ignored", _real),  # share of 255
        ("accepted", _flag),
        ("reason", _text),
        ("benchmark_overlap", _flag),  # the picture is, or nearly is, one of the benchmark's
    ]
    + _PICTURE
)

BENCHMARK = pa.schema(
    [
        ("key", _text),
        ("text", _text),  # caption
        ("entities", _texts),
        ("image", _bytes),  # PNG or JPEG, RGB
        ("label", _bytes),  # PNG, grey, as above
        ("dhash", _text),
        ("sha256", _text),
    ]
)
