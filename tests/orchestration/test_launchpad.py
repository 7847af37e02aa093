"""What a person meets in the launchpad: typed settings with descriptions, filled by a partition."""

import dagster as dg
import pytest

from orchestration import jobs
from orchestration.definitions import defs
from orchestration.resources import Project, known_profiles
from orchestration.studies import PaperRun


def fields(resource: str) -> dict[str, dg.Field]:
    """The settings of a resource as the launchpad's editor knows them."""
    schema = defs.resolve_job_def("pipeline").run_config_schema.run_config_schema_type
    return schema.fields["resources"].config_type.fields[resource].config_type.fields[
        "config"
    ].config_type.fields  # fmt: skip


@pytest.mark.parametrize("resource", ["project", "paper"])
def test_every_setting_is_described_and_may_stay_as_it_is(resource):
    for name, field in fields(resource).items():
        assert field.description, name
        assert not field.is_required and field.default_provided, name


def test_the_profiles_are_named_where_one_is_chosen():
    described = fields("project")["profile"].description
    assert all(name in described for name in known_profiles()) and "paper" not in described


def test_nothing_has_to_be_written():
    job = defs.resolve_job_def("pipeline")
    assert dg.validate_run_config(job, {})["resources"]["project"]["config"]["profile"] == ""
    assert Project().params.profile == "micro" and PaperRun().size == "full"


def test_a_partition_gives_the_run_config_of_its_profile(tmp_path, monkeypatch):
    """`profiles/<name>.run.yaml` where there is one: its registry stays its own in the UI too."""
    job = defs.resolve_job_def("pipeline")
    for profile in known_profiles():
        config = job.get_run_config_for_partition_key(profile)
        chosen = dg.validate_run_config(job, config)["resources"]["project"]["config"]
        assert chosen["profile"] == profile
    assert chosen["tracking_uri"] == ""
    of_ci = job.get_run_config_for_partition_key("ci")["resources"]["project"]["config"]
    assert of_ci["tracking_uri"] == "sqlite:///data/ci/mlflow.db"
    monkeypatch.setattr(jobs, "ROOT", tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "yard.run.yaml").write_text("- profile\n")
    with pytest.raises(ValueError, match="yard.run.yaml: expected a run config .* got list"):
        jobs.config_of("yard")


def test_a_size_of_the_studies_that_is_none_is_refused_in_the_editor():
    job = defs.resolve_job_def("paper")
    with pytest.raises(dg.DagsterInvalidConfigError, match="quik"):
        dg.validate_run_config(job, {"resources": {"paper": {"config": {"size": "quik"}}}})
