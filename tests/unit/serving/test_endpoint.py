import logging

import pytest

from modelyard.errors import Invalid
from modelyard.models import NoFiniteScore
from unit.serving.worlds import face, shares

GOOD = face()
TEN = face(lambda row: 10 * row["x"])
WIDER = face(columns=(("x", "double"), ("y", "double")))


def raising(error):
    def score(row):
        raise error

    return face(score)


def never_finite():
    def score(row):
        raise NoFiniteScore(row=0, engine="function")

    return face(score)


@pytest.fixture
def world(make_world):
    return make_world()


def rows(count, key="k"):
    return {"rows": [{"x": float(i), key: f"c{i}"} for i in range(count)]}


def test_rows_of_one_request_go_to_their_own_variants_and_come_back_in_order(world):
    endpoint = world.endpoint(GOOD, canary=(TEN, "canary", 3_000), entity_key="k")
    answer = world.predict(rows(200))
    for i, prediction in enumerate(answer["predictions"]):
        assert prediction["score"] == (10.0 * i if prediction["variant"] == "canary" else float(i))
        assert prediction["version"] == (2 if prediction["variant"] == "canary" else 1)
    found = shares(answer)
    assert 30 <= found["canary"] <= 90
    assert world.counts(endpoint) == {"control": (found["control"], 0), "canary": (found["canary"], 0)}
    assert len({p["prediction_id"] for p in answer["predictions"]}) == 200
    assert "sticky" not in answer


def test_without_an_entity_key_a_request_goes_to_one_variant_by_its_id(world):
    world.endpoint(GOOD, canary=(TEN, "canary", 5_000))
    seen = set()
    for i in range(40):
        answers = [world.predict({"rows": [{"x": 1}] * 3, "id": f"r{i}"}) for _ in range(2)]
        assert len(shares(answers[0])) == 1
        assert shares(answers[0]) == shares(answers[1])
        assert answers[0]["sticky"] is False
        assert answers[0]["id"] == f"r{i}"
        seen |= set(shares(answers[0]))
    assert seen == {"control", "canary"}


def test_a_row_without_its_key_is_routed_by_request_and_said_so(world):
    world.endpoint(GOOD, canary=(TEN, "canary", 5_000), entity_key="k")
    assert world.predict({"x": 1, "k": None})["sticky"] is False
    assert world.predict({"x": 1})["sticky"] is False
    assert "sticky" not in world.predict({"x": 1, "k": 5})


def test_the_key_and_the_time_are_no_inputs_unless_the_model_takes_them(world):
    world.endpoint(GOOD, entity_key="k", time_column="at")
    assert world.predict({"x": 1, "k": "a", "at": "2026-01-01"})["predictions"][0]["score"] == 1.0
    taking = face(lambda row: row["x"] + row["k"], columns=(("x", "double"), ("k", "long")))
    world.endpoint(taking, canary=(TEN, "canary", 5_000), entity_key="k")
    predictions = [world.predict({"x": 1, "k": k})["predictions"][0] for k in range(30)]
    for k, prediction in enumerate(predictions):
        assert prediction["score"] == (10.0 if prediction["variant"] == "canary" else 1.0 + k)
    assert {prediction["variant"] for prediction in predictions} == {"control", "canary"}


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(3), MemoryError(), ZeroDivisionError()])
def test_a_model_that_raises_is_counted_recorded_and_told_without_details(world, error, caplog):
    endpoint = world.endpoint(raising(error))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            status, answer = world.ask("POST", "/predict/churn", {"x": 1})
    assert status == 422
    assert answer["error"]["code"] == "model_failed"
    assert "secret" not in answer["error"]["message"]
    assert world.counts(endpoint) == {"control": (0, 3)}
    assert [r.statuses for r in world.records.records] == [["model_failed"]] * 3
    assert len([r for r in caplog.records if r.exc_info]) == 1


def test_a_score_that_is_not_finite_is_the_models_fault(world):
    endpoint = world.endpoint(GOOD, canary=(never_finite(), "canary", 10_000))
    status, answer = world.ask("POST", "/predict/churn", {"x": 1})
    assert (status, answer["error"]["code"]) == (422, "no_finite_score")
    assert world.counts(endpoint) == {"control": (0, 0), "canary": (0, 1)}


def test_one_failing_variant_does_not_take_the_other_rows_with_it(world):
    endpoint = world.endpoint(GOOD, canary=(raising(ValueError()), "canary", 4_000), entity_key="k")
    answer = world.predict(rows(100))
    failed = [p for p in answer["predictions"] if "error" in p]
    assert {p["variant"] for p in failed} == {"canary"}
    assert {p["error"]["code"] for p in failed} == {"model_failed"}
    assert all("score" not in p and p["prediction_id"] for p in failed)
    assert world.counts(endpoint) == {"control": (100 - len(failed), 0), "canary": (0, len(failed))}
    (record,) = world.records.records
    assert record.statuses.count("model_failed") == len(failed) > 10


def test_rows_that_only_the_canary_refuses_are_the_canarys_fault(world):
    endpoint = world.endpoint(GOOD, canary=(WIDER, "canary", 10_000))
    status, answer = world.ask("POST", "/predict/churn", {"x": 1})
    assert (status, answer["error"]["code"]) == (422, "schema_mismatch")
    assert world.counts(endpoint)["canary"] == (0, 1)
    assert world.records.records[0].statuses == ["schema_mismatch"]


def test_rows_that_the_control_refuses_too_are_the_requests_fault(world):
    endpoint = world.endpoint(GOOD, canary=(WIDER, "canary", 10_000))
    status, answer = world.ask("POST", "/predict/churn", {"z": 1})
    assert (status, answer["error"]["code"]) == (422, "missing_column")
    assert world.counts(endpoint)["canary"] == (0, 0)
    assert world.records.payloads == []
    assert world.application.rejected == {"missing_column": 1}


def test_the_bad_row_of_a_split_request_is_named_by_its_own_number(world):
    world.endpoint(GOOD, canary=(TEN, "canary", 5_000), entity_key="k")
    for bad in range(20):
        body = rows(20)
        body["rows"][bad]["z"] = 1
        _, answer = world.ask("POST", "/predict/churn", body)
        assert answer["error"]["row"] == bad


def test_a_lease_counts_rows_over_requests_and_then_the_control_answers(world):
    endpoint = world.endpoint(GOOD, canary=(TEN, "canary", 10_000, 7))
    found = [shares(world.predict({"rows": [{"x": 1}] * 3})) for _ in range(4)]
    assert sum(part["canary"] for part in found) == 7
    assert world.counts(endpoint) == {"control": (5, 0), "canary": (7, 0)}


def test_a_version_can_be_asked_for_within_its_lease(world):
    world.endpoint(GOOD, canary=(TEN, "canary", 0, 2))
    for _ in range(2):
        status, answer = world.ask("POST", "/predict/churn/versions/2", {"x": 1})
        assert (status, answer["predictions"][0]["score"]) == (200, 10.0)
    status, answer = world.ask("POST", "/predict/churn/versions/2", {"x": 1})
    assert (status, answer["error"]["code"]) == (429, "lease_used_up")
    assert [record.pinned for record in world.records.records] == [True, True]
    for version in ("3", "x", "-1", "1e0", "9" * 40):
        status, answer = world.ask("POST", f"/predict/churn/versions/{version}", {"x": 1})
        assert (status, answer["error"]["code"]) == (404, "unknown_version")
        assert "serves 1, 2" in answer["error"]["message"]


def test_warnings_stand_with_their_rows(world):
    world.endpoint(GOOD)
    answer = world.predict({"rows": [{"x": 1}, {"x": -1}]})
    assert "warnings" not in answer["predictions"][0]
    assert answer["predictions"][1]["warnings"] == [{"code": "negative"}]
    assert world.records.records[0].warnings == [[], [{"code": "negative"}]]


def test_several_outputs_come_as_a_list(world):
    world.endpoint(face(outputs=3), canary=(TEN, "canary", 5_000), entity_key="k")
    answer = world.predict(rows(30))
    for prediction in answer["predictions"]:
        assert ("outputs" in prediction) == (prediction["variant"] == "control")
        assert ("score" in prediction) == (prediction["variant"] == "canary")


def test_rows_may_be_lists_in_signature_order(world):
    world.endpoint(WIDER)
    assert world.predict([[1, 2], [3, 4]])["predictions"][1]["score"] == 3.0


def test_shadows_answer_copies_under_the_same_ids(world):
    endpoint = world.endpoint(GOOD, shadow=(TEN, "shadow", 4_000), entity_key="k")
    answer = world.predict(rows(50))
    assert set(shares(answer)) == {"control"}
    main, copy = world.records.records
    assert 5 < len(copy.rows) < 40
    assert copy.ids == [main.ids[i] for i in copy.rows]
    assert copy.scores == [10 * main.scores[i] for i in copy.rows]
    assert copy.request_id == main.request_id
    assert world.counts(endpoint)["shadow"] == (len(copy.rows), 0)


@pytest.mark.parametrize("broken", [raising(ValueError()), WIDER, never_finite()])
def test_a_broken_shadow_is_counted_and_nobody_elses_concern(world, broken):
    endpoint = world.endpoint(GOOD, shadow=(broken, "shadow", 10_000))
    assert world.predict({"x": 1})["predictions"][0]["score"] == 1.0
    assert world.counts(endpoint) == {"control": (1, 0), "shadow": (0, 1)}
    assert world.records.records[1].statuses[0] != "ok"


def test_copies_that_do_not_fit_the_queue_are_dropped_and_counted(make_world):
    world = make_world(shadow_limit=0)
    endpoint = world.endpoint(GOOD, shadow=(TEN, "shadow", 10_000))
    world.predict({"x": 1})
    assert (world.shadows.dropped, world.counts(endpoint)["shadow"]) == (1, (0, 0))


def test_a_fault_of_the_request_leaves_the_variant_unblamed(world):
    endpoint = world.endpoint(GOOD)
    with pytest.raises(Invalid):
        endpoint.control.face.check([{"z": 1}])
    world.ask("POST", "/predict/churn", {"z": 1})
    assert world.counts(endpoint) == {"control": (0, 0)}
