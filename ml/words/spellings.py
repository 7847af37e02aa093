"""Label names: how detectors spell a class, and the one name we know it by.

Not here: the words of prompts (`ml/words/vocabularies`). A label name must not change its meaning
when somebody edits those.
"""

from functools import cache

SPELLINGS = {
    # PASCAL VOC's 20 under VOC's ids; all of them are among COCO's 80
    "aeroplane": ("airplane",),
    "bicycle": ("bike",),
    "bird": (),
    "boat": (),
    "bottle": (),
    "bus": (),
    "car": (),
    "cat": (),
    "chair": (),
    "cow": (),
    "diningtable": ("dining table", "table"),
    "dog": (),
    "horse": (),
    "motorbike": ("motorcycle",),
    "person": (),
    "pottedplant": ("potted plant", "plant"),
    "sheep": (),
    "sofa": ("couch",),
    "train": (),
    "tvmonitor": ("tv", "tv monitor", "television"),
    # COCO's other 60 under COCO's names
    "truck": (),
    "traffic light": (),
    "fire hydrant": (),
    "stop sign": (),
    "parking meter": (),
    "bench": (),
    "elephant": (),
    "bear": (),
    "zebra": (),
    "giraffe": (),
    "backpack": (),
    "umbrella": (),
    "handbag": (),
    "tie": ("necktie",),
    "suitcase": (),
    "frisbee": (),
    "skis": (),
    "snowboard": (),
    "sports ball": (),
    "kite": (),
    "baseball bat": (),
    "baseball glove": (),
    "skateboard": (),
    "surfboard": (),
    "tennis racket": (),
    "wine glass": (),
    "cup": (),
    "fork": (),
    "knife": (),
    "spoon": (),
    "bowl": (),
    "banana": (),
    "apple": (),
    "sandwich": (),
    "orange": (),
    "broccoli": (),
    "carrot": (),
    "hot dog": (),
    "pizza": (),
    "donut": ("doughnut",),
    "cake": (),
    "bed": (),
    "toilet": (),
    "laptop": (),
    "mouse": ("computer mouse",),
    "remote": ("remote control",),
    "keyboard": ("computer keyboard",),
    "cell phone": ("mobile phone",),
    "microwave": (),
    "oven": (),
    "toaster": (),
    "sink": (),
    "refrigerator": ("fridge",),
    "book": (),
    "clock": (),
    "vase": (),
    "scissors": (),
    "teddy bear": (),
    "hair drier": ("hair dryer",),
    "toothbrush": (),
}
"""Our name of a class -> its other spellings. Small letters, underscores, hyphens and spaces make
no difference: MMDetection's "hair_drier" and "pottedplant" need no row of their own."""


def canonical(name: str) -> str:
    """A label name as VOC spells it ("couch" -> "sofa", "tv" -> "tvmonitor"), as COCO does where
    VOC has no such class ("hair_dryer" -> "hair drier"), else the name itself in small letters."""
    name = name.strip().lower().replace("_", " ")
    return _ours().get(_bare(name), name)


def _bare(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


@cache
def _ours() -> dict[str, str]:
    return {_bare(name): ours for ours, others in SPELLINGS.items() for name in (ours, *others)}
