"""The ways to start the whole graph, as people type them."""

import sys
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Engine:
    """command: run in the checkout. settings: laid over the small profile. dagster: whether there
    are a history, a registry and a seal to judge. refusal: what a start may end with that asks for
    another one, when the machine has too much else to do."""

    name: str
    command: tuple[str, ...]
    settings: dict = field(default_factory=dict)
    dagster: bool = False
    refusal: str = ""


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("cli", (sys.executable, "-m", "ml", "all")),
        Engine(
            "dagster",
            (sys.executable, "-m", "dagster", "job", "execute")
            + ("-m", "orchestration.definitions", "-j", "pipeline"),
            dagster=True,
        ),
        # A Ray of this machine with a token of its own, which ends with the command.
        Engine(
            "ray",
            (sys.executable, "-m", "ml", "all"),
            {"executor": {"workers": 2}},
            refusal="Ray did not start on this machine in",  # it has 30 s for that
        ),
    )
}
