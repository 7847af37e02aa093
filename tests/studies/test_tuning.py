"""The tuning of the grounding variants: what a run on the command line means."""

import pytest

from benchmarks.tune_grounding import parse, settings, settings_of, table
from ml.settings.profile import load_params

OWN = load_params("paper").grounding


def test_a_run_is_a_variant_and_what_differs():
    variant, changes = parse(
        "paper:learning_rate=0.003,schedule=constant,steps=40,scaled_logits=true,clip_norm=null"
    )
    params, built = settings(OWN, variant, changes)
    assert (variant, params.steps, built) == ("paper", 40, {"scaled_logits": True})
    assert (params.paper.learning_rate, params.paper.schedule) == (0.003, "constant")
    assert params.paper.clip_norm is None
    assert params.seeded == OWN.seeded and params.batch_size == OWN.batch_size
    assert settings(OWN, *parse("seeded:")) == (OWN, {})
    with pytest.raises(ValueError, match="unknown settings.*rate"):
        settings(OWN, "paper", {"rate": 1})


def test_the_table():
    scores = dict.fromkeys(("validation", "one_seen", "one_unseen", "two_seen", "two_mixed"), 1.0)
    rows = [
        {"variant": "paper", "seed": seed, **scores, "two_unseen": value}
        for seed, value in ((0, 50.0), (1, 60.0))
    ]
    assert settings_of(rows[0] | {"seconds": 9}) == {"variant": "paper", "seed": 0}
    assert table(rows).splitlines()[-1] == (
        "| variant paper | 2 | 1.0 | 1.0 | 1.0 | 1.0 | 1.0 | 55.0 |"
    )
