import json

import msgspec
import pytest

from modelyard.errors import Invalid
from modelyard.serving.model import (
    EndpointRoute,
    Lease,
    RouteTable,
    VariantRoute,
    WorkerStatus,
    check,
    decode_status,
    decode_table,
    encode,
)


def variant(name="control", role="control", weight=10_000, lease=None):
    return VariantRoute(name, role, "churn", 1, "d" * 64, weight, lease)


def endpoint(*variants, **given):
    return EndpointRoute("churn", "default", "salt", "customer", None, variants, **given)


def test_a_table_survives_json():
    canary = variant("canary", "canary", 500, Lease("l1", 40))
    shadow = variant("next", "shadow", 100)
    table = RouteTable(7, (endpoint(variant(weight=9_500), canary, shadow, redact=("x",)),))
    assert decode_table(encode(table)) == table


def test_a_status_survives_json():
    status = WorkerStatus(0, 12, "127.0.0.1", 80, rejected={"invalid_json": 3})
    assert decode_status(encode(status)) == status


def test_optional_fields_may_be_absent():
    document = json.loads(encode(RouteTable(1, (endpoint(variant()),))))
    del document["endpoints"][0]["sample"], document["endpoints"][0]["redact"]
    assert decode_table(msgspec.json.encode(document)).endpoints[0].sample == 1.0


@pytest.mark.parametrize(
    ("endpoints", "rule"),
    [
        ((endpoint(variant()), endpoint(variant())), "twice"),
        ((endpoint(variant(), variant(role="shadow")),), "twice"),
        ((endpoint(),), "0 controls"),
        ((endpoint(variant(weight=5_000), variant("b", weight=5_000)),), "2 controls"),
        ((endpoint(variant(lease=Lease("l", 1))),), "lease"),
        ((endpoint(variant(weight=9_000)),), "weigh 9,000"),
        ((endpoint(variant(weight=10_500), variant("c", "canary", -500)),), "expected 0 to 10,000"),
        ((endpoint(variant(), variant("s", "shadow", 10_001)),), "expected 0 to 10,000"),
        ((endpoint(variant(weight=9_000), variant("c", "canary", 1_000, Lease("l", -1))),), "negative"),
        ((endpoint(variant(), sample=1.5),), "samples 1.5"),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused(endpoints, rule):
    with pytest.raises(Invalid, match=rule):
        check(RouteTable(1, endpoints))


def test_weights_of_shadows_are_not_part_of_the_sum():
    check(RouteTable(1, (endpoint(variant(), variant("s", "shadow", 10_000)),)))


@pytest.mark.parametrize("text", [b"", b"[]", b'{"generation": "x"}', b"\xff", b'{"generation": 1}'])
def test_anything_else_is_no_table(text):
    with pytest.raises(Invalid, match="not a route table"):
        decode_table(text)
