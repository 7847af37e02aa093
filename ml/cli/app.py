"""`python -m ml app --profile micro`: words tried on pictures in a browser (`ml.app`).

Draw pictures with masks, find words in pictures of your own, look through what a run made and mark
what is wrong, compare two runs. On this machine alone, at http://127.0.0.1:7860.
"""

from importlib.util import find_spec

from ml.arguments import add_profile, add_root, folder, make_parser, number
from ml.errors import DONE


def main(arguments: list[str]) -> int:
    """Serves the app until it is stopped; returns the exit code."""
    parser = make_parser("python -m ml app", __doc__)
    add_profile(parser)
    add_root(parser)
    from ml.app.serving import PORT, free_port, quiet, serve

    parser.add_argument(
        "--port", type=number(int, 0, 65535), default=PORT, help=f"default {PORT}; 0 takes any"
    )
    parser.add_argument(
        "--segmenter",
        type=folder,
        help="folder of the segmenter shown in Find, such as a download from the registry "
        "(default: the profile's own)",
    )
    chosen = parser.parse_args(arguments)
    if find_spec("gradio") is None:
        raise ImportError(
            "the app needs Gradio, which is not installed: `make app` brings it, or `pip install "
            "'.[app]'` in the checkout"
        )
    port = free_port(chosen.port)
    with quiet():
        from ml.app.page import build
        from ml.settings.profile import load_params

        params = load_params(chosen.profile)
        serve(build(params, chosen.root, chosen.segmenter), port)
    return DONE
