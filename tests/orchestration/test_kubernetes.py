"""Runs and steps as pods: what dagster-k8s makes of deploy/values.yaml and of the assets' tags.

`CHART=folder of Dagster's Helm chart HELM=its binary pytest -m slow` renders the whole chart. Its
files are not ours to keep here, and neither are packages of their own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._serdes import ConfigurableClassData
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job, get_user_defined_k8s_config
from kubernetes.client import ApiClient

from ml.pipeline.table import STAGES
from ml.settings.profile import ROOT
from orchestration.assets import ASSETS
from orchestration.definitions import defs

VALUES = yaml.safe_load((ROOT / "deploy" / "values.yaml").read_text())
CODE = VALUES["dagster-user-deployments"]["deployments"][0]
IMAGE = "words-to-masks:0.1.0"
CHART, HELM = os.environ.get("CHART", ""), os.environ.get("HELM") or shutil.which("helm") or ""
NEEDS = "needs CHART (a folder of Dagster's chart), HELM (its binary) and kubernetes-validate"


def launcher(folder: Path, config: dict) -> K8sRunLauncher:
    """A launcher outside a cluster: with a cluster's address at which nobody answers."""
    kube = folder / "kube.yaml"
    named = {"clusters": ("cluster", {"server": "http://127.0.0.1:1"}), "users": ("user", {})}
    named["contexts"] = ("context", {"cluster": "x", "user": "x"})
    parts = {key: [{"name": "x", kind: value}] for key, (kind, value) in named.items()}
    kube.write_text(yaml.safe_dump(parts | {"current-context": "x"}))
    away = {"load_incluster_config": False, "kubeconfig_file": str(kube)}
    data = ConfigurableClassData("dagster_k8s", "K8sRunLauncher", yaml.safe_dump(config | away))
    return data.rehydrate(as_type=K8sRunLauncher)


def job(made: K8sRunLauncher, context: dict, step_tags: dict[str, str]) -> dict:
    """The Kubernetes job of a run of a code location, or of its step with these tags."""
    pointer = ModuleCodePointer("orchestration.definitions", "defs")
    origin = RepositoryPythonOrigin(sys.executable, pointer, IMAGE, container_context=context)
    run = dg.DagsterRun("pipeline", job_code_origin=JobPythonOrigin("pipeline", origin))
    whole = K8sContainerContext.create_for_run(run, made, include_run_tags=True)
    tags = K8sContainerContext(run_k8s_config=get_user_defined_k8s_config(step_tags))
    whole = whole.merge(tags)
    built = construct_dagster_k8s_job(
        whole.get_k8s_job_config(IMAGE, made), ["dagster"], "name", whole.run_k8s_config
    )
    return ApiClient().sanitize_for_serialization(built)


def tags_of(asset: str) -> dict[str, str]:
    """As a step carries them."""
    found = next(made for made in ASSETS if made.key == dg.AssetKey(asset))
    return found.op.tags


def check_pods(made: K8sRunLauncher, context: dict) -> list[dict]:
    """The jobs of a run, of a GPU step and of a CPU step are as the values say."""
    heavy = next(stage.name for stage in STAGES if stage.heavy)
    jobs = [job(made, context, tags) for tags in ({}, tags_of(heavy), tags_of("prompts"))]
    for one, gpus in zip(jobs, (None, "1", None), strict=True):
        spec = one["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["image"] == IMAGE
        limits = container["resources"]["limits"]
        assert limits["memory"] == "32Gi" and limits.get("nvidia.com/gpu") == gpus
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in spec["volumes"]}
        variables = {variable["name"]: variable for variable in container["env"]}
        assert variables["WORDS_TO_MASKS_ROOT"]["value"].startswith("s3://")
        secret = variables["DAGSTER_PG_PASSWORD"]["valueFrom"]["secretKeyRef"]
        assert secret["name"] == VALUES["global"]["postgresqlSecretName"]
        assert {"secretRef": {"name": "words-logins"}} in container["envFrom"]
        assert one["spec"]["backoffLimit"] == 0, "Dagster decides what is tried again"
    return jobs


def test_the_pods_of_runs_and_steps(tmp_path):
    """dagster-k8s refuses a field that Kubernetes' own classes do not have."""
    raw = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    names = {
        "containerConfig": "container_config",
        "podSpecConfig": "pod_spec_config",
        "jobSpecConfig": "job_spec_config",
    }
    config = {
        "image_pull_policy": raw["imagePullPolicy"],
        "dagster_home": VALUES["global"]["dagsterHome"],
        "instance_config_map": "instance",
        "service_account_name": "words",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
        "run_k8s_config": {names[key]: value for key, value in raw["runK8sConfig"].items()},
    }
    context = {
        "env": CODE["env"],
        "env_secrets": [secret["name"] for secret in CODE["envSecrets"]],
        "resources": CODE.get("resources", {}),
    }
    check_pods(launcher(tmp_path, config), {"k8s": context})


def test_secrets_are_named_and_never_written():
    assert VALUES["generatePostgresqlPasswordSecret"] is False
    assert "postgresqlPassword" not in VALUES["postgresql"]
    assert not any("value" in v and "PASSWORD" in v["name"] for v in CODE["env"])
    assert VALUES["dagsterWebserver"]["service"]["type"] == "ClusterIP"


def test_one_image_does_everything():
    images = [CODE["image"], VALUES["dagsterWebserver"]["image"], VALUES["dagsterDaemon"]["image"]]
    assert all(image == images[0] for image in images)
    assert f"{images[0]['repository']}:{images[0]['tag']}" == IMAGE


def test_a_wrong_config_of_pods_starts_no_run(tmp_path):
    """The config's content is dagster-k8s's own; it is checked when the run begins."""
    made = defs.resolve_job_def("data")
    wrong = {"execution": {"config": {"kubernetes": {"job_nmaespace": "x"}}}}
    dg.validate_run_config(made, wrong)
    with (
        dg.instance_for_test() as instance,
        dg.execute_job(
            dg.reconstructable(data_job), instance=instance, run_config=wrong, raise_on_error=False
        ) as result,
    ):
        (failed,) = result.filter_events(lambda event: event.is_run_failure)
        assert "job_nmaespace" in failed.event_specific_data.error.to_string()
        assert not result.get_step_success_events()


def data_job() -> dg.JobDefinition:
    return defs.resolve_job_def("data")


def local_schemas(chart: Path, definitions: Path) -> None:
    """Lets the chart's schemas find Kubernetes' types on this machine, not at an address."""
    for schema in (chart / "values.schema.json", *chart.glob("charts/*/values.schema.json")):
        elsewhere = r'"https?://[^"#]*/_definitions\.json#/definitions/'
        here = f'"{definitions.as_uri()}#/$defs/'
        schema.write_text(re.sub(elsewhere, here, schema.read_text()))


@pytest.mark.slow
@pytest.mark.skipif(not (CHART and HELM and find_spec("kubernetes_validate")), reason=NEEDS)
def test_the_chart_renders_with_our_values(tmp_path):
    """By the chart's own schema; every manifest, and the pods that Dagster makes of them, by
    Kubernetes' schemas, in which a field that does not exist is an error."""
    import kubernetes_validate

    schemas = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    newest = max(schemas.glob("*-local"), key=lambda path: int(path.name.split(".")[1]))
    chart = Path(shutil.copytree(CHART, tmp_path / "chart"))
    local_schemas(chart, newest / "_definitions.json")
    values = ROOT / "deploy" / "values.yaml"

    def render(*more: str) -> subprocess.CompletedProcess[str]:
        command = [HELM, "template", "words", str(chart), "-f", str(values), *more]
        return subprocess.run(command, capture_output=True, text=True)

    done = render()
    assert done.returncode == 0, done.stderr
    manifests = [one for one in yaml.safe_load_all(done.stdout) if one]
    refused = render("--set", "dagsterWebserver.service.port=many")
    assert refused.returncode != 0 and "port" in refused.stderr, "the schema is in force"

    by_name = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    instance = yaml.safe_load(
        by_name["ConfigMap", "words-dagster-instance"]["data"]["dagster.yaml"]
    )
    for store in ("run_storage", "event_log_storage", "schedule_storage"):
        database = instance[store]["config"]["postgres_db"]
        assert database["scheme"] == "postgresql+psycopg2"
        assert database["password"] == {"env": "DAGSTER_PG_PASSWORD"}
    assert not [name for kind, name in by_name if kind == "Secret"]
    code = by_name["Deployment", f"words-dagster-user-deployments-{CODE['name']}"]
    (container,) = code["spec"]["template"]["spec"]["containers"]
    (context,) = [v["value"] for v in container["env"] if v["name"].endswith("CONTAINER_CONTEXT")]
    jobs = check_pods(launcher(tmp_path, instance["run_launcher"]["config"]), json.loads(context))
    version = newest.name.removeprefix("v").removesuffix("-local")
    for manifest in (*manifests, *jobs):
        kubernetes_validate.validate(manifest, version, strict=True)
