"""The tab Compare."""

from pathlib import Path

import gradio as gr

from ml.app import showing
from ml.app.asked import asked
from ml.app.comparing import compare, runs


def lay_out(root: Path, profile: str, blocks: gr.Blocks) -> None:
    """Puts the tab's parts on the page that is being built; they are filled when it is loaded."""
    with gr.Row(elem_classes="wm-form"):
        one = gr.Dropdown([profile], value=profile, label="First run", elem_id="compare-one")
        other = gr.Dropdown([profile], value=profile, label="Second run", elem_id="compare-other")
    button = gr.Button("Compare", variant="primary", elem_id="compare-button")
    message = gr.HTML(elem_id="compare-message", apply_default_css=False)
    result = gr.HTML(elem_id="compare-result", apply_default_css=False)

    def choose() -> tuple:
        names = runs(root) or [profile]
        last = next((name for name in names if name != profile), profile)
        own = profile if profile in names else names[0]
        return gr.update(choices=names, value=own), gr.update(choices=names, value=last)

    def answer(one: str, other: str) -> tuple:
        def question() -> tuple:
            found = compare(root, one, other)
            count = len(found.settings)
            said = f"{count} settings differ." if count != 1 else "1 setting differs."
            return showing.message(said), showing.compared(found, one, other)

        return asked(question, ("",))

    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    blocks.load(choose, None, [one, other], **quiet)
    button.click(answer, [one, other], [message, result], **quiet)
