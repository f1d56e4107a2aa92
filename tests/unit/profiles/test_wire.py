"""Profiles as bytes."""

import msgspec
import numpy as np
import pytest

from modelyard.errors import Invalid
from modelyard.profiles import EdgesDiffer, empty, from_bytes, learn_specs, profile, to_bytes

RNG = np.random.default_rng(0)
TABLE = {
    "x": RNG.normal(size=20_000),
    "s": RNG.choice(["a", "b", "ü"], 20_000),
    "b": RNG.random(20_000) < 0.3,
    "t": (1_700_000_000 + RNG.integers(0, 10**6, 20_000)).astype("datetime64[s]"),
}
SPEC = learn_specs({name: values[:5_000] for name, values in TABLE.items()})


def test_round_trip_keeps_everything():
    seen = profile(TABLE | {"s": ["new", *TABLE["s"][1:]], "more": TABLE["x"]}, SPEC)
    again = from_bytes(to_bytes(seen), SPEC)
    assert again == seen
    assert again["s"].unseen[0].label == "new"
    assert again.extra_columns == ("more",)


def test_round_trip_of_the_empty_profile_and_of_extremes():
    assert from_bytes(to_bytes(empty(SPEC)), SPEC) == empty(SPEC)
    odd = profile({"x": [-np.inf, 2.0**499, -(2.0**-1074), None]}, SPEC)
    assert from_bytes(to_bytes(odd), SPEC) == odd


def test_size_of_a_numeric_column():
    spec = learn_specs({f"c{i}": TABLE["x"] for i in range(10)})
    small = len(to_bytes(profile({f"c{i}": TABLE["x"][:500] for i in range(10)}, spec))) / 10
    large = len(to_bytes(profile({f"c{i}": TABLE["x"] for i in range(10)}, spec))) / 10
    assert 300 < small < 450
    assert 350 < large < 600


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_cut_bytes_are_refused(cut):
    data = to_bytes(profile(TABLE, SPEC))
    with pytest.raises(Invalid):
        from_bytes(data[:cut], SPEC)


def altered(change):
    raw = msgspec.msgpack.decode(to_bytes(profile(TABLE, SPEC)))
    change(raw)
    return msgspec.msgpack.encode(raw)


def set_version(raw):
    raw[0] = 99


def drop_column(raw):
    raw[4].pop()


def drop_count(raw):
    raw[4][0][0].pop()


def break_sketch(raw):
    raw[4][0][11][1] = b"short"


def break_type(raw):
    raw[4][0][1] = "many"


@pytest.mark.parametrize("change", [set_version, drop_column, drop_count, break_sketch, break_type])
def test_altered_bytes_are_refused(change):
    with pytest.raises(Invalid):
        from_bytes(altered(change), SPEC)


def test_text_that_is_no_utf8_is_refused():
    with pytest.raises(Invalid):
        from_bytes(b"\x95\x01\xa2\xff\xfe\x00\x90\x90", SPEC)


def test_bytes_of_another_specification_are_refused():
    with pytest.raises(EdgesDiffer):
        from_bytes(to_bytes(profile(TABLE, SPEC)), learn_specs(TABLE))
