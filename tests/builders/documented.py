"""The commands that README, CONTRIBUTING and the guides name, and whether their programs take them.

Before each block of commands stands a comment that says who runs it, or why nobody does:

    <!-- run: tests/cli/test_init.py, hours -->     run by that test, but for what takes hours
    <!-- needs: gpu, hub -->                        run by no test
"""

import argparse
import importlib
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from ml.__main__ import COMMANDS
from ml.pipeline.table import STAGE
from ml.settings.profile import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
REASONS = {"gpu", "hub", "network", "server", "hours"}
OTHER = {"text", "yaml", "python", ""}
"""What fences are beside `sh`; one without a name holds no command."""
PROGRAMS = {"python", "python3.11", "make", "pip", "pytest", "dagster", "dg", "dvc", "accelerate"}
FOREIGN = {
    "git",
    "docker",
    "helm",
    "ray",
    "pre-commit",
    "torchrun",
    "cd",
    "export",
    "hf",
    "ssh",
    "mlflow",
}
"""Programs that are not ours to ask: a block with one is marked as needing something, or run."""
MARK = re.compile(r"<!-- (run|needs): (.+?) -->")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    kind: str  # run, needs or "" without a mark
    names: tuple[str, ...]  # tests and reasons
    text: str

    @property
    def tests(self) -> list[Path]:
        return [ROOT / name for name in self.names if name not in REASONS]

    @property
    def reasons(self) -> set[str]:
        return REASONS & set(self.names)


def parsed(page: Path) -> list:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def blocks(page: Path) -> list[Block]:
    """The fences of a page that hold commands."""
    found, before, name = [], "", str(page.relative_to(ROOT))
    for token in parsed(page):
        if token.type == "fence" and token.info == "sh":
            mark = MARK.fullmatch(before.strip())
            kind, names = mark.groups() if mark else ("", "")
            parts = tuple(part.strip() for part in names.split(",") if part.strip())
            found.append(Block(name, token.map[0] + 1, kind, parts, token.content))
        if token.type == "fence" and token.info not in (OTHER | {"sh"}):
            raise ValueError(f"{page.name}:{token.map[0] + 1}: fence of {token.info!r}")
        if token.type == "fence" and not token.info:
            wrong = [c for c in split(token.content) if c and program(c) in PROGRAMS]
            if wrong:
                raise ValueError(
                    f"{page.name}:{token.map[0] + 1}: commands in a fence without `sh`"
                )
        before = token.content if token.type == "html_block" else ""
    return found


def named(page: Path) -> set[str]:
    """Commands within sentences and tables: code that begins with a program's name."""
    texts = {
        code.content
        for token in parsed(page)
        for code in token.children or ()
        if code.type == "code_inline"
    }
    commands = {text for text in texts if any(program(c) in PROGRAMS for c in split(text)[:1])}
    return {text for text in commands if " " in text}


def split(text: str) -> list[list[str]]:
    """Commands as lists of words; comments, variables before them and redirections left out."""
    whole = re.sub(r"\\\n", " ", text)
    whole = re.sub(r"<[^<>\n]+>", lambda place: place[0].replace(" ", "-"), whole)  # one word
    found = []
    for line in whole.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            return []  # a tree, a sentence
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            found.append(_bare(words[:end]))
            words = words[end + 1 :]
    return [command for command in found if command]


def _bare(words: list[str]) -> list[str]:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    for sign in (">", "|"):
        if sign in words:
            words = words[: words.index(sign)]
    return words


def program(command: list[str]) -> str:
    return command[0].rsplit("/", 1)[-1] if command else ""


def refusal(command: list[str], whole: bool = True) -> str | None:
    """Why a command of ours would not be taken, None where it would; FOREIGN ones are. whole: False
    for one that a sentence only names, so that it lacks what it needs (`python -m ml init`)."""
    name, arguments = program(command), command[1:]
    if "..." in arguments or name in FOREIGN:
        return None
    if not whole and arguments[:2] == ["-m", "ml"] and len(arguments) == 3:
        known = {*STAGE, *COMMANDS, "all", "--help"}
        return None if arguments[2] in known or "<" in arguments[2] else f"no {arguments[2]}"
    if name.startswith("python"):
        return _module(arguments[1:]) if arguments[:1] == ["-m"] else None
    if name == "accelerate":
        at = arguments.index("-m") if "-m" in arguments else len(arguments)
        if at == len(arguments):
            return _launcher(arguments[1:])
        return _launcher(arguments[1:at]) or _module(arguments[at + 1 :])
    ask = {"make": _make, "pip": _pip, "pytest": _pytest, "dvc": _dvc}.get(name, _click)
    return ask(arguments, name) if ask is _click else ask(arguments)


class _Taken(BaseException):
    pass


class _Refused(BaseException):
    pass


def _module(words: list[str]) -> str | None:
    """Runs `python -m words` up to where its parser has read them all."""
    name, arguments = words[0], words[1:]
    if not arguments and name in ("ml", "venv"):
        return None
    if name == "venv":
        return None
    arguments = ["prompts" if i == 0 and a[0] == "<" else a for i, a in enumerate(arguments)]
    whole = name if ROOT.joinpath(*name.split(".")).with_suffix(".py").is_file() else ""
    if not whole and ROOT.joinpath(*name.split("."), "__main__.py").is_file():
        whole = f"{name}.__main__"
    if not whole:
        return None if name == "pytest" else f"no module {name}"
    parse, argv = argparse.ArgumentParser.parse_args, sys.argv

    def read(self, args=None, namespace=None):
        self.allow_abbrev = False
        try:
            parse(self, args, namespace)
        except SystemExit as stop:
            if stop.code:
                raise _Refused(f"{self.prog} does not take {arguments}") from None
        raise _Taken

    sys.argv = [name, *arguments]
    argparse.ArgumentParser.parse_args = read
    try:
        source = ROOT.joinpath(*whole.split(".")).with_suffix(".py").read_text()
        if "parser" not in source.lower():
            return f"{name} takes no arguments" if arguments else None
        importlib.import_module(whole).main()
    except _Taken:
        return None
    except _Refused as refused:
        return str(refused)
    finally:
        argparse.ArgumentParser.parse_args, sys.argv = parse, argv
    return f"{name} read no arguments"


def _make(arguments: list[str]) -> str | None:
    text = (ROOT / "Makefile").read_text()
    for word in arguments:
        variable, _, value = word.partition("=")
        if value or "=" in word:
            if not re.search(rf"\$\({variable}\)|\$\$?{variable}\b|\b{variable} \?=", text):
                return f"the Makefile reads no {variable}"
        elif not re.search(rf"^{re.escape(word)}:", text, re.MULTILINE) and word[:5] != ".venv":
            return f"no target {word}"
    return None


def _pip(arguments: list[str]) -> str | None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for word in arguments:
        if own := re.fullmatch(r"\.\[(.+)\]", word):
            if missing := set(own[1].split(",")) - set(extras):
                return f"no extra {sorted(missing)}"
    files = [after for word, after in zip(arguments, arguments[1:], strict=False) if word == "-c"]
    return next((f"no file {file}" for file in files if not (ROOT / file).is_file()), None)


def _pytest(arguments: list[str]) -> str | None:
    files = [word for word in arguments if word.startswith("tests/")]
    return next((f"no {file}" for file in files if not (ROOT / file).exists()), None)


def _dvc(arguments: list[str]) -> str | None:
    from dvc.cli import parse_args
    from dvc.cli.parser import DvcParserError

    try:
        parse_args(arguments)
    except DvcParserError as error:
        return str(error)
    except SystemExit as stop:
        return f"dvc ended with {stop.code}" if stop.code else None
    return None


def _click(arguments: list[str], name: str) -> str | None:
    import click

    if name == "dg":
        from dagster_dg_cli.cli import cli as command
    else:
        from dagster._cli import create_dagster_cli

        command = create_dagster_cli()
    rest, context = arguments, None
    try:
        while True:
            context = command.make_context(name, list(rest), parent=context)
            if not isinstance(command, click.Group):
                return None
            name, command, rest = command.resolve_command(
                context, [*context._protected_args, *context.args]
            )
    except click.exceptions.Exit:
        return None  # --version, --help
    except click.ClickException as error:
        return error.format_message()


def _launcher(arguments: list[str]) -> str | None:
    from accelerate.commands.launch import launch_command_parser

    known = launch_command_parser()._option_string_actions
    wrong = [word for word in arguments if word.startswith("-") and word not in known]
    return f"accelerate launch has no {wrong}" if wrong else None
