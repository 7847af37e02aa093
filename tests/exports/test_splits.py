"""Shares that are read, and pictures that are dealt out by them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.exports.splits import assign, read_split


@pytest.mark.parametrize(
    "text, shares",
    [
        ("train=0.8,val=0.2", {"train": 0.8, "val": 0.2}),
        (" val = .25 , train = .75 ", {"train": 0.75, "val": 0.25}),
        ("train=1", {"train": 1.0}),
        ("a=0.1,b=0.2,c=0.7", {"c": 0.7, "b": 0.2, "a": 0.1}),
    ],
)
def test_shares_are_read(text, shares):
    assert read_split(text) == shares and list(read_split(text)) == list(shares)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "expected a name"),
        ("train", "'train': expected a name"),
        ("train=0.8", "the shares make 0.8, expected 1"),
        ("train=0.8,val=0.3", "the shares make 1.1"),
        ("train=1,train=0", "'train=0': expected a name"),
        ("train=0.5,train=0.5", "each once"),
        ("train=nan,val=1", "expected a name"),
        ("train=-1,val=2", "expected a name"),
        ("../x=1", "expected a name"),
        ("all=1", "none of all, trainval"),
        ("train:0.5", "'train:0.5'"),
    ],
)
def test_what_is_no_split_is_refused(text, says):
    with pytest.raises(ValueError, match="split") as error:
        read_split(text)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "kind, name",
    [
        ("coco", "annotations"),
        ("coco", "Annotations"),
        *[("yolo-seg", name) for name in ("names", "path", "nc", "images", "labels", "NC")],
    ],
)
def test_names_that_mean_something_else_to_a_format_are_refused(kind, name):
    with pytest.raises(ValueError, match=f"'{name}=0.2': expected a name .*none of all, trainval"):
        read_split(f"train=0.5,val=0.3,{name}=0.2", kind)
    other = "voc" if kind == "coco" else "coco"
    assert name in read_split(f"train=0.5,val=0.3,{name}=0.2", other)


@given(
    st.lists(st.integers(0, 30), min_size=20, max_size=60),
    st.sampled_from(["train=0.8,val=0.2", "train=0.5,val=0.25,test=0.25", "train=1"]),
    st.integers(0, 2**32 - 1),
)
def test_groups_stay_together_and_shares_are_kept(groups, text, seed):
    shares = read_split(text)
    numbers = np.array(groups)
    try:
        places = assign(numbers, shares, seed)
    except ValueError as error:
        assert "holds none" in str(error)
        return
    for group in set(groups):
        assert len(set(places[numbers == group])) == 1
    assert np.array_equal(places, assign(numbers, shares, seed))
    largest = max(np.bincount(numbers))
    for place, share in enumerate(shares.values()):
        assert abs((places == place).sum() - share * len(groups)) <= largest * len(shares)


def test_single_pictures_are_dealt_out_exactly_and_by_the_seed():
    numbers = np.arange(1000)
    first = assign(numbers, read_split("train=0.8,val=0.2"), 0)
    assert np.bincount(first).tolist() == [800, 200]
    other = assign(numbers, read_split("val=0.2,train=0.8"), 1)
    assert np.bincount(other).tolist() == [800, 200] and (first != other).any()


def test_a_split_without_pictures_is_refused():
    with pytest.raises(ValueError, match=r"val=0.1 of 3 pictures \(3 groups of near copies\)"):
        assign(np.arange(3), read_split("train=0.9,val=0.1"), 0)
