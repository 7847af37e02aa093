"""Hostile input by the hundred: none ends in a traceback, is taken for sound, or costs a file.

`python -m tests.fuzz --seed N --count 500` tries others.
"""

import pytest

from tests.fuzz.families import FAMILIES, as_processes, choose
from tests.fuzz.harness import (
    ACCEPTED,
    LOST,
    NONSENSE,
    REFUSED,
    TRACEBACK,
    UNCLEAR,
    WRONG,
    Case,
    faults,
    judge,
    run_all,
    table,
)


def none_is_wrong(cases: list[Case], folder, capsys) -> None:
    results = run_all(cases, folder)
    with capsys.disabled():
        print(f"\n{table(results)}")
    assert not faults(results), "\n".join(faults(results))


def test_sixty_inputs_without_a_model(tmp_path, capsys):
    none_is_wrong(choose(0, 60, quick=True), tmp_path, capsys)


@pytest.mark.slow  # three minutes
def test_hundreds_of_inputs_some_of_them_as_people_start_them(tmp_path, capsys):
    cases = as_processes(choose(1, 400), 30)
    assert len({(case.family, case.name) for case in cases}) == 400
    none_is_wrong(cases, tmp_path, capsys)


def test_a_seed_gives_the_same_inputs_and_another_gives_others():
    quick = [family.name for family in FAMILIES if family.quick and family.name != "workspaces"]
    for name in quick:
        first, again, other = ([case.name for case in choose(seed, 15, name)] for seed in (5, 5, 6))
        assert first == again != other


def spoil(arguments):
    open("../mine/deep/notes.txt", "w").close()


def litter(arguments):
    open("stray.txt", "w").close()


def mend(arguments):
    return 0


def fall(arguments):
    return {}["x"]


def stammer(arguments):
    import sys

    print("error: one\nerror: two", file=sys.stderr)
    return 2


@pytest.mark.parametrize(
    "command, sound, more, verdict",
    [
        (mend, True, {}, ACCEPTED),
        (mend, False, {}, NONSENSE),
        (fall, False, {}, TRACEBACK),
        (fall, True, {}, TRACEBACK),
        (spoil, True, {}, LOST),
        (litter, True, {}, LOST),
        (stammer, False, {}, UNCLEAR),
        (stammer, True, {}, WRONG),
        (mend, True, {"check": lambda folder, out: "another value"}, WRONG),
        ("ml.__main__", False, {"names": ("invalid choice: 'paint'",)}, REFUSED),
        ("ml.__main__", False, {"names": ("line 7",)}, UNCLEAR),
        ("ml.__main__", False, {"codes": (3,)}, UNCLEAR),
        ("ml.__main__", True, {}, WRONG),
        ("ml.__main__", False, {"process": True}, REFUSED),
    ],
)
def test_the_harness_sees_each_kind_of_fault(tmp_path, command, sound, more, verdict):
    case = Case("any", "any", sound, lambda folder: ["paint"], command, **more)
    assert judge(case, tmp_path).verdict == verdict
