"""How a tab answers: an answer, or one sentence that says what was wrong; never a traceback.

A defect of ours is told as one, and its traceback goes to the terminal.
"""

import sys
import traceback
from collections.abc import Callable

import gradio as gr

from ml.app import showing
from ml.app.answers import Told
from ml.errors import DEFECT, exit_code, one_line, shown

MODELS = "models"
"""Questions to the models wait in one line, which has this name in Gradio."""


def asked(question: Callable[[], tuple], blank: tuple) -> tuple:
    """What the question gives; of one that fails the sentence as a message, and `blank` for the
    rest."""
    try:
        return question()
    except Exception as error:  # whatever it is, the person reads one sentence
        return showing.message(sentence(error), "error"), *blank


def sentence(error: Exception) -> str:
    """What is said of an error on the page."""
    if exit_code(error) != DEFECT:
        return shown(one_line(error))
    traceback.print_exception(error, file=sys.stderr)
    return (
        f"A defect of this program ({type(error).__name__}): the terminal that runs the app shows "
        "where. What you typed was not at fault; other questions still work."
    )


def telling(progress: gr.Progress) -> Told:
    """Says on the page how far a question is."""
    return lambda share, doing: progress(share, desc=doing) and None
