"""The tab Browse."""

from typing import Any
from uuid import uuid4

import gradio as gr

from ml.app import showing
from ml.app.asked import asked
from ml.app.browsing import EVERY, TITLES, Sets

LISTEN = """
element.addEventListener('change', (event) => {
  const field = event.target.closest('fieldset[data-key]');
  if (field) trigger('mark', {...field.dataset, verdict: event.target.value});
});
watch('value', () => {
  for (const input of element.querySelectorAll('input')) input.checked = input.defaultChecked;
});
"""
"""A verdict that is chosen in the page goes to the server with the mask that it is about. Gradio
changes the elements of the page before into those of another one: what somebody chose is taken out
of them, or it would show at another mask."""
ALL = "all classes"


def lay_out(sets: Sets, blocks: gr.Blocks) -> None:
    """Puts the tab's parts on the page that is being built; they are filled when it is loaded."""
    stage = gr.Radio(
        [(title, name) for name, title in TITLES.items()],
        value=next(iter(TITLES)),
        label="Set",
        elem_id="browse-stage",
    )
    with gr.Row(elem_classes="wm-form"):
        reason = gr.Dropdown([EVERY], value=EVERY, label="Show", elem_id="browse-reason")
        entity = gr.Dropdown([ALL], value=ALL, label="Class", elem_id="browse-class")
    message = gr.HTML(elem_id="browse-message", apply_default_css=False)
    grid = gr.HTML(elem_id="browse-grid", apply_default_css=False, js_on_load=LISTEN)
    with gr.Row(elem_classes="wm-form"):
        back = gr.Button("Previous page", elem_id="browse-back")
        page = gr.Number(1, label="Page", precision=0, minimum=1, elem_id="browse-page")
        onward = gr.Button("Next page", elem_id="browse-next")

    def show(stage: str, reason: str, entity: str, page: float | None) -> tuple:
        def question() -> tuple:
            own = sets.page(stage, reason, "" if entity == ALL else entity, int(page or 1))
            said = (
                f"{own.total:,} masks, page {own.page} of {own.pages}; {own.marked} marked by you "
                "in this set. Say below a picture whether its mask is right."
            )
            now = (stage, reason, entity, own.page)
            return showing.message(said), showing.browsed(own), own.page, now

        return asked(question, ("", gr.skip(), ()))

    def show_other(now: tuple, stage: str, reason: str, entity: str, page: float | None) -> tuple:
        """Another page than is there. A field that Tab only passes reports an input too: what is
        there stays then, and with it the place of whoever goes on with the keyboard."""
        if now == (stage, reason, entity, page):
            return (gr.skip(),) * len(shown)
        return show(stage, reason, entity, page)

    def show_first(now: tuple, stage: str, reason: str, entity: str) -> tuple:
        """The first page of another choice than is there."""
        if now[:3] == (stage, reason, entity):
            return (gr.skip(),) * len(shown)
        return show(stage, reason, entity, 1)

    def choose(stage: str) -> tuple:
        """The choices that a set has, and its first page."""

        def question() -> tuple:
            reasons = [(title, choice) for choice, title in sets.reasons(stage).items()]
            return (
                *show(stage, EVERY, ALL, 1),
                gr.update(choices=reasons, value=EVERY),
                gr.update(choices=[ALL, *sets.classes(stage)], value=ALL),
            )

        return asked(question, ("", 1, (), gr.skip(), gr.skip()))

    def mark(stage: str, reason: str, entity: str, page: float, said: gr.EventData) -> tuple:
        def question() -> tuple:
            own = _texts(said._data, "stage", "key", "word", "sha256", "verdict")
            count = sets.mark(**own)
            marks = "1 mark" if count == 1 else f"{count} marks"
            text = f"Kept: {own['word']} in {own['key']} is {own['verdict']}. {marks} so far."
            return showing.message(text), gr.skip()

        told, kept = asked(question, (None,))
        if kept is None:  # what the page shows as chosen was not kept
            kept = f"{show(stage, reason, entity, page)[1]}<!-- {uuid4()} -->"  # equal is not shown
        return told, kept

    def turned(by: int) -> Any:
        return lambda stage, reason, entity, page: show(stage, reason, entity, (page or 1) + by)

    now = gr.State(())  # set, reason, class and page that are on the page
    filters, shown = [stage, reason, entity, page], [message, grid, page, now]
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    gr.on([blocks.load, stage.input], choose, stage, [*shown, reason, entity], **quiet)
    gr.on([reason.input, entity.input], show_first, [now, stage, reason, entity], shown, **quiet)
    gr.on([page.submit, page.blur], show_other, [now, *filters], shown, **quiet)
    back.click(turned(-1), filters, shown, **quiet)
    onward.click(turned(+1), filters, shown, **quiet)
    grid.mark(mark, filters, [message, grid], trigger_mode="multiple", **quiet)


def _texts(data: Any, *names: str) -> dict[str, str]:
    """Named texts out of what a browser sent. Raises ValueError unless all are there."""
    values = {name: data.get(name) if isinstance(data, dict) else None for name in names}
    if wrong := [name for name, value in values.items() if not isinstance(value, str)]:
        raise ValueError(f"a mark without {wrong[0]}: load the page again")
    return values
