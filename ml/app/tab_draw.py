"""The tab Draw."""

import time

import gradio as gr

from ml.app import showing
from ml.app.asked import MODELS, asked, telling
from ml.app.drawing import MOST_PICTURES, MOST_STEPS, draw
from ml.app.models import Models

PROMPT = "a photograph of a dog and a cat"


def lay_out(models: Models) -> None:
    """Puts the tab's parts on the page that is being built."""
    with gr.Row(elem_classes="wm-form"):
        prompt = gr.Textbox(
            PROMPT, label="Prompt", info="What is drawn, as one English sentence.", scale=3
        )
        words = gr.Textbox(
            "dog, cat",
            label="Words",
            elem_id="draw-words",
            info="To mask, as they stand in the prompt, with commas. Empty: all that it names.",
            scale=2,
        )
    with gr.Row(elem_classes="wm-form"):
        seed = gr.Number(0, label="Seed", precision=0, info="Another seed, another picture.")
        count = gr.Slider(1, MOST_PICTURES, 1, step=1, label="Pictures")
        steps = gr.Slider(
            2, MOST_STEPS, models.params.diffusion.steps, step=1, label="Steps of denoising"
        )
    button = gr.Button("Draw", variant="primary", elem_id="draw-button")
    message = gr.HTML(elem_id="draw-message", apply_default_css=False)
    result = gr.HTML(elem_id="draw-result", apply_default_css=False)

    def answer(
        prompt: str,
        words: str,
        seed: int,
        count: int,
        steps: int,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio looks for it here
    ) -> tuple:
        def question() -> tuple:
            began = time.monotonic()
            answers = draw(models, prompt, words, seed, int(steps), int(count), telling(progress))
            took = time.monotonic() - began
            many = f"{len(answers)} pictures" if len(answers) > 1 else "1 picture"
            return showing.message(f"{many} in {took:.1f} seconds."), showing.drawn(answers)

        return asked(question, ("",))

    gr.on(
        [button.click, prompt.submit, words.submit],
        answer,
        [prompt, words, seed, count, steps],
        [message, result],
        concurrency_limit=1,
        concurrency_id=MODELS,
        show_progress_on=message,
        api_visibility="private",
    )
