"""Labels every pixel of a picture with the trained segmenter, as with any model of transformers.

In the checkout:

    python -m examples.use_the_segmenter picture.png
"""

import argparse
from pathlib import Path

from PIL import Image
from transformers import pipeline

from ml import load_segmenter
from ml.images.photographs import open_picture
from ml.segmenters.processor import image_processor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    parser.add_argument("--folder", default="data/micro/segmenter")
    parser.add_argument("--side", type=int, default=64, help="of the pictures it was trained on")
    asked = parser.parse_args()

    model = load_segmenter(asked.folder)
    segment = pipeline(
        "image-segmentation",
        model=model,
        image_processor=image_processor(model, (asked.side, asked.side)),
    )
    # Without the subtask transformers takes a MaskFormer for a panoptic model: objects go missing.
    shown = Image.fromarray(open_picture(asked.picture))
    for entry in segment(shown, subtask="semantic"):
        pixels = sum(entry["mask"].histogram()[1:])
        print(f"{entry['label']}: {pixels} pixels")


if __name__ == "__main__":
    main()
