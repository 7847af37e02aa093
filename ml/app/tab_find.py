"""The tab Find."""

import tempfile
import time
from pathlib import Path
from typing import Any

import gradio as gr

from ml.app import showing
from ml.app.asked import MODELS, asked, telling
from ml.app.downloads import write_coco, write_masks
from ml.app.finding import find, read_picture
from ml.app.models import Models
from ml.grounding.presence import MIN_PRESENCE
from ml.images.photographs import PHOTO_FORMATS

NOTHING = "no picture: choose, drop or paste one first"


def lay_out(models: Models) -> None:
    """Puts the tab's parts on the page that is being built."""
    with gr.Row(elem_classes="wm-form"):
        with gr.Column(scale=2, min_width=280):
            picture = gr.Image(
                label=f"Picture ({', '.join(PHOTO_FORMATS)})",
                sources=["upload", "clipboard"],
                height=260,
                elem_id="find-picture",
                buttons=[],
            )
        with gr.Column(scale=3, min_width=280):
            words = gr.Textbox(
                "dog, cat",
                label="Words",
                elem_id="find-words",
                info="To look for, separated by commas.",
            )
            threshold = gr.Slider(
                0,
                0.1,
                MIN_PRESENCE,
                step=0.001,
                label="Threshold of presence",
                info="A word below it is taken not to be in the picture. 0 takes every word.",
            )
            button = gr.Button("Find", variant="primary", elem_id="find-button")
            message = gr.HTML(elem_id="find-message", apply_default_css=False)
    result = gr.HTML(elem_id="find-result", apply_default_css=False)
    with gr.Row(elem_classes="wm-form"):
        pngs = gr.DownloadButton("Masks as PNG", interactive=False, elem_id="find-png")
        coco = gr.DownloadButton("Masks as COCO", interactive=False, elem_id="find-coco")

    place = Path(pngs.GRADIO_CACHE)  # goes with the server; Gradio copies nothing that lies in it
    place.mkdir(parents=True, exist_ok=True)
    none = gr.update(value=None, interactive=False)

    def answer(
        brought: dict[str, Any] | None,
        words: str,
        threshold: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio looks for it here
    ) -> tuple:
        def question() -> tuple:
            began = time.monotonic()
            data, name = handed_over(brought)
            found = find(models, data, name, words, threshold, telling(progress))
            folder = Path(tempfile.mkdtemp(dir=place))
            files = write_masks(found, folder), write_coco(found, folder)
            there = sum(own.presence >= threshold for own in found.answer.words)
            said = f"{there} of {len(found.answer.words)} words are in the picture"
            return (
                showing.message(f"{said}; answered in {time.monotonic() - began:.1f} seconds."),
                showing.found(found),
                *(gr.update(value=str(own), interactive=True) for own in files),
            )

        return asked(question, ("", none, none))

    def look(brought: dict[str, Any] | None) -> tuple:
        """Of a picture that was just brought: one that cannot be used is put away at once."""

        def question() -> tuple:
            data, name = handed_over(brought)
            height, width = read_picture(data, name).shape[:2]
            return showing.message(f"{name}: {width} x {height} pixels."), gr.skip()

        return asked(question, (None,))

    raw = {"preprocess": False, "api_visibility": "private"}
    picture.upload(look, picture, [message, picture], show_progress="hidden", **raw)
    gr.on(
        [button.click, words.submit],
        answer,
        [picture, words, threshold],
        [message, result, pngs, coco],
        concurrency_limit=1,
        concurrency_id=MODELS,
        show_progress_on=message,
        **raw,
    )


def handed_over(brought: dict[str, Any] | None) -> tuple[bytes, str]:
    """The bytes of the file that the browser uploaded, and its name. Raises ValueError for none.

    The events take the file as it came (`preprocess=False`): Gradio would decode it first, where
    nobody can say in words what is wrong with it.
    """
    if not isinstance(brought, dict) or not isinstance(brought.get("path"), str):
        raise ValueError(NOTHING)
    file = Path(brought["path"])
    return file.read_bytes(), str(brought.get("orig_name") or file.name)
