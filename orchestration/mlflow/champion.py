"""`python -m orchestration.mlflow.champion segmenter [--set previous]`: which version is champion,
and a rollback.

Shows the versions of a profile's registered model, or makes one of them champion whatever the gate
says: `previous`, `challenger` or a number. It stays champion until a new model wins.
"""

import sys

from ml.arguments import add_profile, add_workspace, make_parser
from ml.errors import exit_path
from orchestration.resources import Project

ALIASES = ("champion", "previous", "challenger")


@exit_path
def main(arguments: list[str] | None = None) -> None:
    parser = make_parser("python -m orchestration.mlflow.champion", __doc__)
    parser.add_argument("model", choices=("grounding", "segmenter"))
    parser.add_argument(
        "--set",
        metavar="VERSION",
        help="previous, challenger or the number of a version",
    )
    add_profile(parser)
    add_workspace(parser)
    parser.add_argument("--tracking-uri", help="of MLflow, when not <root>/mlflow.db")
    chosen = parser.parse_args(arguments)
    project = Project(
        profile=chosen.profile, root=str(chosen.root), tracking_uri=chosen.tracking_uri or ""
    )
    print(move(project, chosen.model, chosen.set or ""))


def move(project: Project, model: str, wanted: str = "") -> str:
    """Makes the wanted version champion, if any; returns a line for each version and its aliases.

    Raises ValueError for a version that isn't there.
    """
    from orchestration.mlflow.registry import Registry

    registry = Registry(*project.registry, project.params, project.workspace)
    name = registry.names[model]
    versions = sorted(
        (str(v.version) for v in registry.client.search_model_versions(f"name = '{name}'")), key=int
    )
    if wanted:
        version = registry.alias(model, wanted) if wanted in ALIASES else wanted
        if version not in versions:
            raise ValueError(
                f"{name!r} has no version {wanted!r}: expected one of {versions}, "
                "previous or challenger"
            )
        registry.move_title(model, version)
    held = {alias: registry.alias(model, alias) for alias in ALIASES}
    lines = [
        f"models:/{name}/{version}  "
        + ", ".join(alias for alias in ALIASES if held[alias] == version)
        for version in versions
    ]
    return "\n".join(line.rstrip() for line in lines) or f"{name!r} has no version yet"


if __name__ == "__main__":
    sys.exit(main())
