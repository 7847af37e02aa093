"""The ways to start the whole graph, as people type them."""

import sys
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Engine:
    """command: run in the checkout. settings: laid over the small profile. dagster: whether there
    are a history, a registry and a seal to judge."""

    name: str
    command: tuple[str, ...]
    settings: dict = field(default_factory=dict)
    dagster: bool = False


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
        Engine("ray", (sys.executable, "-m", "ml", "all"), {"executor": {"workers": 2}}),
    )
}
