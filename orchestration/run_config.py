"""`python -m orchestration.run_config --profile yard --write FILE`: what `make run` begins with.

It reads the profile, so that a wrong setting is reported in one line before Dagster starts; writes
the job's run config; and prints a value for HF_HUB_OFFLINE: 1 when every model is on this machine,
so that Hugging Face's libraries need no network, else 0.
"""

import sys
from pathlib import Path

import yaml

from ml.arguments import add_profile, add_workspace, make_parser, new_file
from ml.errors import exit_path
from ml.pipeline.table import STAGES
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.profile import ROOT, load_params
from ml.store.files import atomic
from orchestration.home import home_of
from orchestration.mlflow.tracking import resolve


def models_elsewhere(params: Params, workspace: Workspace) -> list[str]:
    """The models of a profile that are not files of this machine: hub ids, published weights."""
    places = dict.fromkeys(place for stage in STAGES for place in stage.models)
    names = {place: params.section(place) for place in places}
    found = {place: workspace.model(name) for place, name in names.items() if name is not None}
    # a backend's own name ("coco") is no folder that happens to be called so
    found["detector.model"] = workspace.detector(params.detector)
    return [names[place] for place, model in found.items() if not Path(model).exists()]


@exit_path
def main(arguments: list[str] | None = None) -> int:
    parser = make_parser("python -m orchestration.run_config", __doc__)
    add_profile(parser)
    add_workspace(parser)
    parser.add_argument("--tracking-uri", help="of MLflow, when not <root>/mlflow.db")
    parser.add_argument("--write", type=new_file, required=True, help="the run config, a YAML file")
    chosen = parser.parse_args(arguments)
    params = load_params(chosen.profile)
    project = {"profile": chosen.profile}
    if chosen.root != ROOT:
        project["root"] = str(chosen.root)
    if chosen.tracking_uri:
        project["tracking_uri"] = chosen.tracking_uri
    # what the run would refuse is refused now, and not after Dagster's start
    resolve(chosen.tracking_uri or "", "", home_of(str(chosen.root)))
    config = {
        "resources": {"project": {"config": project}},
        "loggers": {"console": {"config": {"log_level": "WARNING"}}},
    }
    with atomic(chosen.write) as temporary:
        temporary.write_text(yaml.safe_dump(config), encoding="utf-8")
    print(int(not models_elsewhere(params, Workspace(chosen.root, params.profile))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
