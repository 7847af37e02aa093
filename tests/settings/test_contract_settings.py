"""What people write in a profile: a value that nothing can be made of is refused at loading, with
the file and the line that they can mend; and no two files write into one folder of data/."""

import dataclasses
import json
import shutil
import types
import typing
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml

from ml.__main__ import main
from ml.pipeline.runner import run_stage
from ml.settings.params import Params
from ml.settings.profile import ROOT, load_params
from ml.settings.ranges import Length, Pattern, Range, fit
from ml.store.reading import read_yaml, yaml_lines


def fields_of(cls: type, above: str = "") -> dict[str, object]:
    """The annotation of every setting, by its full name."""
    hints, found = typing.get_type_hints(cls, include_extras=True), {}
    for field in dataclasses.fields(cls):
        full, hint = f"{above}{field.name}", hints[field.name]
        found |= fields_of(hint, f"{full}.") if dataclasses.is_dataclass(hint) else {full: hint}
    return found


FIELDS = fields_of(Params)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with the project's params.yaml and no profile."""
    (tmp_path / "profiles").mkdir()
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


def write(root: Path, values: str | dict, name: str = "mine") -> str:
    file = root / "profiles" / f"{name}.yaml"
    file.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return name


def outside(hint) -> list:
    """Values that an annotation must not take: each end passed, not a number, of another type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    nothing = [[], {}, {"a": 1}]
    if origin in (typing.Union, types.UnionType):
        assert args[1] is type(None), f"{hint}: only `... | null` is known here"
        return [value for value in outside(args[0]) if value is not None]
    if origin is Literal:
        return [*nothing, None, "", "nonsense", args[0].upper(), 0, True]
    if hint is bool:
        return [*nothing, None, 0, 1, "true", "yes"]
    assert origin is Annotated, f"{hint}: declare a range, a length or a pattern beside the field"
    kind, rule = args
    if typing.get_origin(kind) is list:
        assert isinstance(rule, Length)
        (inner,) = typing.get_args(kind)
        good = inside(inner)
        return [
            None,
            good,
            {},
            [good] * (rule.low - 1),
            [good] * (rule.high + 1),
            *([bad] * rule.low for bad in outside(inner)),
        ]
    if kind is str:
        assert isinstance(rule, Pattern)
        return [*nothing, None, "", "  ", " x", "x\n", "a\nb", "a\0b", 7, 1.5, False, "x" * 5000]
    assert kind in (int, float) and isinstance(rule, Range)
    low = rule.low if rule.above else rule.low - (1 if kind is int else 1e-6)
    high = rule.high if rule.below else rule.high + (1 if kind is int else 1e-6)
    more = [1.5, 10**400] if kind is int else []
    return [*nothing, None, low, high, float("nan"), float("inf"), -float("inf"), "3", True, *more]


def inside(hint):
    """A value at the lower end of a number's range."""
    kind, rule = typing.get_args(hint)
    step = 1 if kind is int else (rule.high - rule.low) / 1000
    return rule.low + step if rule.above else rule.low


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_refuses_what_is_outside_of_its_range(field):
    """By reflection: a field without a declared range fails here."""
    bad = outside(FIELDS[field])
    assert len(bad) >= 6
    for value in bad:
        with pytest.raises(ValueError, match="expected .*, got "):
            fit(value, FIELDS[field])


@pytest.mark.parametrize("field", FIELDS)
def test_loading_names_the_file_and_the_line(field, checkout):
    *sections, name = field.split(".")
    text = "# a comment\n"
    for depth, part in enumerate(sections):
        text += f"{'  ' * depth}{part}:\n"
    text += f"{'  ' * len(sections)}{name}: {json.dumps(outside(FIELDS[field])[-1])}\n"
    line = len(sections) + 2
    with pytest.raises(ValueError, match=rf"mine\.yaml, line {line}: {field}: expected .*, got"):
        load_params(write(checkout, text), checkout)


@pytest.mark.parametrize(
    "hint",
    [
        h
        for h in FIELDS.values()
        if typing.get_origin(h) is Annotated and typing.get_args(h)[0] in (int, float)
    ],
)
def test_the_ends_of_a_range_are_in_it_or_not_as_declared(hint):
    kind, rule = typing.get_args(hint)
    for end, excluded in ((rule.low, rule.above), (rule.high, rule.below)):
        if excluded:
            with pytest.raises(ValueError):
                fit(kind(end), hint)
        else:
            assert fit(kind(end), hint) == end


@pytest.mark.parametrize(
    "text",
    [  # each was accepted, or a traceback, at the command line
        "grounding: {steps: 0}",
        "grounding: {patience: 0}",
        "grounding: {layers: 0}",
        "grounding: {heads: 0}",
        "grounding: {evaluate_every: 0}",
        "grounding: {batch_size: -4}",
        "grounding: {evidence_timesteps: []}",
        "grounding: {evidence_timesteps: [1000]}",
        "grounding: {paper: {learning_rate: .nan}}",
        "grounding: {seeded: {learning_rate: 0}}",
        "grounding: {paper: {dice_weight: -.inf}}",
        "segmenter: {steps: 0}",
        "segmenter: {queries: 0}",
        "segmenter: {scale: 0}",
        "segmenter: {weight_decay: .nan}",
        "segmenter: {poly_power: -1}",
        "diffusion: {guidance_scale: .inf}",
        "diffusion: {batch_size: 0}",
        "diffusion: {steps: 1}",
        "diffusion: {device: gpu}",
        "diffusion: {scheduler: ''}",
        "diffusion: {scheduler: EDMEulerScheduler}",
        "diffusion: {scheduler: DDIM}",
        "promotion: {min_grounding: .nan}",
        "promotion: {min_segmenter: -1}",
        "prompts: {train_one: -1}",
        "prompts: {plain_share: 1.1}",
        "triplets: {min_score: 2}",
        "triplets: {duplicate_bits: 64}",
        "triplets: {min_std: .inf}",
        "synthetic: {ignore_band: [0.0, 1.0]}",
        "benchmark: {bootstrap: 0}",
        "benchmark: {daam_thresholds: 0}",
        "seed: -1",
        "seed: 1e400",
        "shards: {size: 0}",
    ],
)
def test_nonsense_is_refused(text, checkout):
    with pytest.raises(ValueError, match=r"mine\.yaml, line 1: [a-z_.]+: expected"):
        load_params(write(checkout, text), checkout)


@pytest.mark.parametrize(
    "text, match",
    [
        (
            "grounding:\n  width: 100\n  heads: 8",
            "line 3: grounding.heads: expected a divisor .*100",
        ),
        ("grounding: {width: 130}", "grounding.heads: expected a divisor of grounding.width 130"),
        ("segmenter: {width: 48}", "segmenter.width: expected a multiple of 32 for maskformer"),
        ("prompts: {train_one: 0, train_two: 1}", "train_one: expected 2 or more .* together"),
        ("prompts: {synthetic_one: 0, synthetic_two: 0}", "synthetic_one: expected 1 or more"),
        (
            "triplets: {min_area: 0.8}",
            "max_area: expected more than triplets.min_area 0.8, got 0.7",
        ),
        ("segmenter: {crop_size: 64, scale_range: [2, 1]}", "scale_range: expected .*low <= high"),
        (
            "executor: {workers: 2}\ndiffusion: {device: 'cuda:1'}",
            "diffusion.device: expected auto",
        ),
    ],
)
def test_two_settings_that_do_not_go_together(text, match, checkout):
    with pytest.raises(ValueError, match=rf"mine\.yaml, .*{match}"):
        load_params(write(checkout, text), checkout)


def test_the_file_named_is_the_one_that_set_it(checkout):
    """A fault of a base is told in the base, one between the two in the file that came last."""
    write(checkout, "grounding:\n  width: 64\n  heads: 8\n", "big")
    write(checkout, "base: big\n\ngrounding: {heads: 7}\n")
    with pytest.raises(ValueError, match=r"mine\.yaml, line 3: grounding.heads: .*width 64, got 7"):
        load_params("mine", checkout)
    write(checkout, "seed: -3\n", "big")
    with pytest.raises(ValueError, match=r"big\.yaml, line 1: seed: "):
        load_params("mine", checkout)
    base = (checkout / "params.yaml").read_text()
    (checkout / "params.yaml").write_text(base.replace("patience: 3", "patience: 0"))
    line = base[: base.index("patience:")].count("\n") + 1
    with pytest.raises(ValueError, match=rf"params\.yaml, line {line}: grounding.patience: "):
        load_params(root=checkout)


@pytest.mark.parametrize(
    "text, match",
    [
        (
            "grounding: {paper: {learning_rate: 1e-4}}",
            "got '1e-4' as text; write 0.0001, without quotes",
        ),
        ("grounding: {steps: '900'}", "got '900' as text; write 900, without quotes"),
        ("diffusion: {revision: 4638}", "got 4638; put it in quotes"),
        ("vocabulary: no", "got False; put it in quotes"),
        ("seed: 010", "line 1: .*010 is not a decimal number"),
        ("grounding: {steps: 1:30}", "1:30 is not a decimal number"),
        ("diffusion: {revision: 0123456}", "0123456 is not a decimal number; quote it"),
        ("diffusion: {vae_tiling: 'on'}", "expected true or false, got 'on'"),
        ("grounding:", "grounding: expected a mapping of settings, got None"),
        ("grounding: {stepz: 3}", "unknown setting 'grounding.stepz'; did you mean 'steps'"),
        ("7: 3", "unknown setting '7'"),
        ("seed: 1\nseed: 2", "line 2: .*'seed' stands twice"),
        ("[" * 1500, "nested too deeply"),
    ],
)
def test_yaml_as_people_write_it(text, match, checkout):
    with pytest.raises(ValueError, match=rf"mine\.yaml.*{match}"):
        load_params(write(checkout, text), checkout)


def test_anchors_and_merge_keys_are_read(checkout):
    text = "segmenter: &own\n  batch_size: 9\ngrounding:\n  <<: *own\n  heads: 7\n"
    with pytest.raises(ValueError, match=r"mine\.yaml, line 5: grounding.heads"):
        load_params(write(checkout, text), checkout)
    params = load_params(write(checkout, text.replace("  heads: 7\n", "")), checkout)
    assert params.grounding.batch_size == params.segmenter.batch_size == 9


# Names: a profile is a folder below data/


@pytest.mark.parametrize(
    "name",
    [
        "../../home/you",
        "/tmp/x",
        "a/b",
        "",
        " ",
        ".state",
        "..",
        "foundation",
        "Foundation",
        "real",
        7,
        None,
        "a b",
        "x" * 65,
    ],
)
def test_a_name_that_is_no_folder_of_its_own_is_refused(name, checkout):
    with pytest.raises(ValueError, match=r"mine\.yaml, line 1: profile: expected"):
        load_params(write(checkout, {"profile": name}), checkout)


def test_no_profile_takes_the_name_of_another(checkout, tmp_path):
    write(checkout, "seed: 1", "yard")
    write(checkout, "profile: yard", "other")
    write(checkout, "profile: micro", "third")
    (tmp_path / "away").mkdir()
    shutil.copyfile(checkout / "profiles" / "yard.yaml", tmp_path / "away" / "yard.yaml")
    shutil.copyfile(checkout / "profiles" / "yard.yaml", tmp_path / "away" / "micro.yml")
    for profile in (
        "other",
        "third",
        str(tmp_path / "away" / "yard.yaml"),
        str(tmp_path / "away" / "micro.yml"),
    ):
        with pytest.raises(ValueError, match="both would write into data/(yard|micro)"):
            load_params(profile, checkout)
    assert load_params(str(checkout / "profiles" / "yard.yaml"), checkout).profile == "yard"
    assert load_params(str(checkout / "params.yaml"), checkout).profile == "micro"


@pytest.mark.parametrize("profile", ["../params", "", ".", "/etc/passwd", "words/pets", "x" * 5000])
def test_what_is_no_profile_is_unknown(profile, checkout):
    with pytest.raises(ValueError, match="unknown profile .* expected 'micro', one of"):
        load_params(profile, checkout)


def test_two_files_of_one_stem_do_not_share_a_folder(tmp_path):
    """The first one that ran keeps the folder as long as its file is there."""
    files = [tmp_path / folder / "yard.yaml" for folder in ("a", "b")]
    for seed, file in enumerate(files):
        file.parent.mkdir()
        file.write_text(f"seed: {seed}\n")
    first = run_stage("prompts", load_params(str(files[0])), tmp_path)
    assert main(["prompts", "--profile", str(files[1]), "--root", str(tmp_path)]) == 2
    assert run_stage("prompts", load_params(str(files[0])), tmp_path).cached
    with pytest.raises(ValueError, match=rf"holds the stages of {files[0]}, not of {files[1]}"):
        run_stage("prompts", load_params(str(files[1])), tmp_path)
    files[0].unlink()  # moved away: the other may take over
    assert run_stage("prompts", load_params(str(files[1])), tmp_path).digest != first.digest
    (tmp_path / "data/yard/.state/profile.json").write_text("{")
    assert run_stage("prompts", load_params(str(files[1])), tmp_path).cached


def test_a_text_that_was_read_before_gives_values_of_its_own(tmp_path):
    """Short texts are parsed once a process; what is made of them is whose it is given to."""
    file = tmp_path / "words.yaml"
    file.write_text("words: [dog]\n")
    first = read_yaml(file)
    first["words"].append("cat")
    assert read_yaml(file) == {"words": ["dog"]}
    file.write_text("words: [cow]\n")
    assert read_yaml(file) == {"words": ["cow"]} and yaml_lines(file) == {"words": 1}
    file.write_text("words: [cow]\nwords: [dog]\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="line 2.*stands twice"):
            read_yaml(file)
