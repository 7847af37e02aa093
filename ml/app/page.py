"""The page: four tabs, one style, nothing from anywhere else."""

from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from ml.app import showing, tab_browse, tab_compare, tab_draw, tab_find
from ml.app.answers import MOST_WORDS
from ml.app.browsing import Sets
from ml.app.models import Models
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params

TITLE = "Words to masks"
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
MOST_UPLOAD = "50mb"


@dataclass(frozen=True)
class Page:
    """What is served. head: the style, for the page's <head>."""

    blocks: gr.Blocks
    theme: gr.themes.Base
    head: str


def build(params: Params, root: Path, segmenter: Path | None = None) -> Page:
    """The app of a profile. segmenter: the folder of the one shown in Find, None for its own."""
    workspace = Workspace(root, params.profile)
    models = Models(params, workspace, segmenter)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
        title = showing.page("title.html.j2", title=TITLE, profile=params.profile)
        gr.HTML(title, apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("Draw", id="draw"):
                tab_draw.lay_out(models)
            with gr.Tab("Find", id="find"):
                tab_find.lay_out(models)
            with gr.Tab("Browse", id="browse"):
                tab_browse.lay_out(Sets(workspace, models.vocabulary), blocks)
            with gr.Tab("Compare", id="compare"):
                tab_compare.lay_out(root, params.profile, blocks)
    blocks.queue(default_concurrency_limit=4)
    theme = gr.themes.Default(font=FONTS, font_mono=MONO, primary_hue="blue").set(
        body_text_color_subdued="*neutral_600",  # Gradio's own greys are too pale to be read
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        color_accent="*primary_700",
    )
    return Page(blocks, theme, showing.page("style.html.j2", most=MOST_WORDS))
