"""Every command of README, CONTRIBUTING and the guides is taken by its program, and is run by a
test or marked with what it needs. A misspelt flag, target, test or module fails here."""

import pytest

from tests.builders.documented import (
    FOREIGN,
    PAGES,
    PROGRAMS,
    REASONS,
    blocks,
    named,
    program,
    refusal,
    split,
)

BLOCKS = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: f"{b.page}:{b.line}")
def test_a_block_says_who_runs_it_or_what_it_needs(block):
    where = f"{block.page}:{block.line}"
    assert block.kind, f"{where}: expected <!-- run: tests/... --> or <!-- needs: ... --> before it"
    assert not [test for test in block.tests if not test.exists()], where
    if block.kind == "needs":
        assert block.names and set(block.names) <= REASONS, f"{where}: of {sorted(REASONS)}"
    else:
        assert block.tests, f"{where}: which test runs it?"
        assert not [c for c in split(block.text) if not block.reasons and not runs(block, c)], where


def runs(block, command) -> bool:
    """Whether a test of the block speaks of the command: of its stage, module or target; or reads
    the page itself."""
    if program(command) in ("cd", "export"):
        return True
    words = [w for w in command[1:] if w[0] != "-" and "=" not in w] or [program(command)]
    key = words[1] if words[0] == "ml" and len(words) > 1 else words[0].rsplit(".", 1)[-1]
    files = [f for test in block.tests for f in ([test] if test.is_file() else test.rglob("*.py"))]
    texts = [file.read_text() for file in files]
    page = block.page.rsplit("/", 1)[-1]
    return key.startswith("tests/") or any(key in text or f'"{page}"' in text for text in texts)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_is_taken_by_its_program(page):
    wrong = []
    texts = [(block.text, True) for block in blocks(page)]
    texts += [(text, False) for text in sorted(named(page))]
    for command, whole in ((c, whole) for text, whole in texts for c in split(text)):
        if program(command) not in PROGRAMS | FOREIGN:
            wrong.append(f"{command}: not a program of this project; list it as FOREIGN?")
        elif why := refusal(command, whole):
            wrong.append(f"{command}: {why}")
    assert not wrong


@pytest.mark.parametrize(
    "wrong",
    [
        "python -m ml plan --profil sd15 --no-prob",
        "python -m ml grounding_modell",
        "python -m ml.studies --study protocol_one --rows x",
        "python -m ml.studys",
        "python -m orchestration.mlflow.champion segmenters",
        "python -m ml.quality.rules --out x",
        "make rnu",
        "make run PROFIL=ci",
        "pip install '.[pipelines]'",
        "pip install . -c constraint.txt",
        "pytest tests/cli/test_inits.py",
        "dvc pul",
        "dagster job execute -m orchestration.definitions --jobs pipeline",
        "dg lunch --job pipeline",
        "accelerate launch --multi_gpus -m ml segmenter",
        "accelerate launch --multi_gpu -m ml segmentr",
    ],
)
def test_a_misspelt_command_is_found(wrong, capsys):
    (command,) = split(wrong)
    assert refusal(command)
