from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.serving.model import EndpointRoute, Lease, VariantRoute
from modelyard.serving.routing import Router, bucket, key_bytes
from modelyard.serving.tally import TallyBook

KEYS = [f"customer-{i}".encode() for i in range(20_000)]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    book = TallyBook(tmp_path_factory.mktemp("tallies") / "0.tallies")
    yield book
    book.close()


def make(book, weights, *, leases=None, missing=(), salt="s"):
    """A router over the names of its variants; ``weights`` maps a canary or shadow to its weight."""
    leases = leases or {}
    roles = {name: "shadow" if name.startswith("shadow") else "canary" for name in weights}
    rest = 10_000 - sum(weight for name, weight in weights.items() if roles[name] == "canary")
    variants = [VariantRoute("control", "control", "m", 1, "a", rest)]
    for i, (name, weight) in enumerate(weights.items()):
        variants.append(VariantRoute(name, roles[name], "m", i + 2, name, weight, leases.get(name)))
    route = EndpointRoute("e", "default", salt, "k", None, tuple(variants))
    present = {}
    for v in variants:
        if v.name not in missing:
            lease = None if v.lease is None else v.lease.id
            tally = book.tally("e", v.name, v.digest, lease=lease, share=v.lease.answers if v.lease else 0)
            present[v.name] = (v.name, tally)
    return Router(route, present)


def test_shares_follow_the_weights(book):
    router = make(book, {"canary": 1_000, "other": 2_500})
    counts = Counter(router.choose(router.bucket(key)) for key in KEYS)
    assert counts["canary"] / len(KEYS) == pytest.approx(0.10, abs=0.01)
    assert counts["other"] / len(KEYS) == pytest.approx(0.25, abs=0.01)


@settings(max_examples=25, deadline=None)
@given(low=st.integers(0, 10_000), high=st.integers(0, 10_000))
def test_raising_a_weight_moves_entities_only_to_the_canary(book, low, high):
    low, high = sorted((low, high))
    before, after = make(book, {"canary": low}), make(book, {"canary": high})
    for key in KEYS[:500]:
        first, second = before.choose(before.bucket(key)), after.choose(after.bucket(key))
        assert second == first or (first, second) == ("control", "canary")


def test_endpoints_with_other_salts_split_independently(book):
    one, two = make(book, {"canary": 5_000}, salt="one"), make(book, {"canary": 5_000}, salt="two")
    both = Counter((one.bucket(k) < 5_000, two.bucket(k) < 5_000) for k in KEYS)
    assert all(count / len(KEYS) == pytest.approx(0.25, abs=0.02) for count in both.values())


def test_the_bucket_is_fixed_for_all_time():
    assert [bucket(b"s", key) for key in (b"a", b"b", b"customer-1")] == [4536, 9006, 2785]


def test_a_used_up_lease_sends_its_traffic_to_the_control(book):
    router = make(book, {"canary": 10_000}, leases={"canary": Lease("first", 3)})
    assert [router.choose(0) for _ in range(5)] == ["canary"] * 3 + ["control"] * 2
    renewed = make(book, {"canary": 10_000}, leases={"canary": Lease("second", 2)})
    assert [renewed.choose(0) for _ in range(3)] == ["canary"] * 2 + ["control"]


def test_a_canary_that_is_not_loaded_leaves_everybody_else_where_they_are(book):
    whole = make(book, {"canary": 2_000, "other": 3_000})
    broken = make(book, {"canary": 2_000, "other": 3_000}, missing=("canary",))
    for place in range(0, 10_000, 7):
        before, after = whole.choose(place), broken.choose(place)
        assert after == ("control" if before == "canary" else before)


def test_shadows_get_copies_of_their_share(book):
    router = make(book, {"shadow": 2_000, "shadow-2": 5_000})
    assert (router.shadows(1_999), router.shadows(2_000), router.shadows(5_000)) == (
        ["shadow", "shadow-2"],
        ["shadow-2"],
        [],
    )
    assert router.choose(0) == "control"
    assert not make(book, {"shadow": 0}).splits


def test_versions_can_be_asked_for_whatever_their_weight(book):
    router = make(book, {"canary": 0, "shadow": 100})
    assert {number: found[0] for number, found in router.by_version.items()} == {
        1: "control",
        2: "canary",
        3: "shadow",
    }


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("a", b"a"),
        (7, b"7"),
        (7.0, b"7"),
        (7.5, b"7.5"),
        (True, b"true"),
        (None, None),
        (float("nan"), None),
        ("\ud800", b"\xed\xa0\x80"),
        (10**30, b"1" + b"0" * 30),
    ],
)
def test_keys_hash_by_their_text(value, key):
    assert key_bytes(value) == key
