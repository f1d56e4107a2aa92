import pytest

from modelyard.serving.faults import EmptyBody, InvalidJson
from modelyard.serving.protocols import oip
from modelyard.serving.protocols.oip import BadTensor
from unit.serving.worlds import face

ORDER = ("a", "b")


def tensor(name, data, shape=None, datatype="FP64"):
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}


def parsed(*tensors, order=ORDER, extra=(), **given):
    import msgspec

    return oip.parse(msgspec.json.encode({"inputs": tensors, **given}), order=order, extra=extra)


def test_one_tensor_a_column():
    ask = parsed(tensor("b", [1, 2], datatype="INT64"), tensor("a", [0.5, None], [2, 1]), id="q")
    assert ask.rows == [{"b": 1, "a": 0.5}, {"b": 2, "a": None}]
    assert ask.request_id == "q"


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_one_tensor_of_all_columns(data):
    assert parsed(tensor("input-0", data, [2, 2])).rows == [[1, 2], [3, 4]]


def test_the_key_beside_a_matrix():
    ask = parsed(
        tensor("x", [1, 2, 3, 4], [2, 2]),
        tensor("k", ["u", "v"], datatype="BYTES"),
        extra=("k",),
        outputs=[{"name": "score"}],
    )
    assert ask.rows == [{"a": 1, "b": 2, "k": "u"}, {"a": 3, "b": 4, "k": "v"}]
    assert ask.outputs == ("score",)


@pytest.mark.parametrize(
    "tensors",
    [
        [tensor("a", [1], [2])],
        [tensor("a", [1, 2, 3, 4], [2, 2])],
        [tensor("a", [1], [1, 1, 1])],
        [tensor("a", [], [0, 5])],
        [tensor("a", [1], [-1])],
        [tensor("a", [1], [10**12])],
        [tensor("a", [1], datatype="FP16")],
        [tensor("a", [1], datatype="TEXT")],
        [tensor("a", ["1"])],
        [tensor("a", [True], datatype="INT64")],
        [tensor("a", [1.5], datatype="INT64")],
        [tensor("a", [1], datatype="BOOL")],
        [tensor("a", [1], datatype="BYTES")],
        [tensor("a", [300], datatype="INT8")],
        [tensor("a", [-1], datatype="UINT64")],
        [tensor("a", [2**63], datatype="INT64")],
        [tensor("a", [[1, 2]], [1])],
        [tensor("a", [[1], 2], [2])],
        [tensor("a", [1]), tensor("a", [1])],
        [tensor("a", [1]), tensor("b", [1, 2])],
        [tensor("c", [1])],
        [tensor("c", [1, 2, 3], [1, 3])],
        [tensor("x", [1, 2], [1, 2]), tensor("y", [1, 2], [1, 2])],
        [tensor("x", [1, 2], [1, 2]), tensor("a", [1])],
    ],
)
def test_tensors_that_do_not_fit(tensors):
    with pytest.raises(BadTensor, match="expected") as caught:
        parsed(*tensors)
    assert caught.value.facts["expected"]


@pytest.mark.parametrize(
    "body",
    [b"", b"  ", b'{"inputs": []}', b'{"inputs":[{"name":"a","shape":[0],"datatype":"FP64","data":[]}]}'],
)
def test_nothing_to_infer(body):
    with pytest.raises(EmptyBody):
        oip.parse(body, order=ORDER)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"inputs": 1}',
        b'{"inputs": [{}]}',
        b"[" * 5000,
        b'{"inputs": [{"name": "a", "shape": ["1"], "datatype": "FP64", "data": [1]}]}',
    ],
)
def test_no_request(body):
    with pytest.raises(InvalidJson):
        oip.parse(body, order=ORDER)


@pytest.fixture
def world(make_world):
    world = make_world()
    wide = face(lambda row: row["a"] + row["b"], columns=(("a", "double"), ("b", "long")))
    world.endpoint(wide, canary=(wide, "canary", 0), entity_key="k")
    return world


BODY = {"id": "q1", "inputs": [tensor("x", [1, 2, 3, 4], [2, 2])]}


def test_an_inference(world):
    status, answer = world.ask("POST", "/v2/models/churn/infer", BODY)
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert (status, answer["model_name"], answer["model_version"], answer["id"]) == (200, "churn", "1", "q1")
    assert outputs["score"] == {"name": "score", "datatype": "FP64", "shape": [2], "data": [3.0, 7.0]}
    assert outputs["label"] == {"name": "label", "datatype": "INT64", "shape": [2], "data": [1, 1]}
    assert outputs["version"]["data"] == [1, 1]
    assert world.records.records[0].ids == outputs["prediction_id"]["data"]


def test_only_the_outputs_asked_for(world):
    _, answer = world.ask("POST", "/v2/models/churn/infer", {**BODY, "outputs": [{"name": "label"}]})
    assert [output["name"] for output in answer["outputs"]] == ["label"]
    status, answer = world.ask("POST", "/v2/models/churn/infer", {**BODY, "outputs": [{"name": "prob"}]})
    assert (status, list(answer)) == (422, ["error"])
    assert "outputs are score, label" in answer["error"]


def test_several_outputs_are_a_matrix(make_world):
    world = make_world()
    world.endpoint(face(outputs=3))
    _, answer = world.ask("POST", "/v2/models/churn/infer", {"inputs": [tensor("x", [1.0, 2.0])]})
    assert answer["outputs"][0] == {
        "name": "scores",
        "datatype": "FP64",
        "shape": [2, 3],
        "data": [1.0, 1.0, 1.0, 2.0, 2.0, 2.0],
    }


def test_a_version_can_be_asked_for(world):
    _, answer = world.ask("POST", "/v2/models/churn/versions/2/infer", BODY)
    assert answer["model_version"] == "2"
    assert world.ask("GET", "/v2/models/churn/versions/2/ready") == (200, {"name": "churn", "ready": True})
    assert world.ask("GET", "/v2/models/churn/versions/3")[0] == 404


def test_metadata(world):
    assert world.ask("GET", "/v2") == (200, {"name": "modelyard", "version": "", "extensions": []})
    status, answer = world.ask("GET", "/v2/models/churn")
    assert (status, answer["versions"]) == (200, ["1", "2"])
    assert answer["inputs"] == [
        {"name": "a", "datatype": "FP64", "shape": [-1]},
        {"name": "b", "datatype": "INT64", "shape": [-1]},
    ]
    assert [output["name"] for output in answer["outputs"]] == ["score", "label", "prediction_id", "version"]
    assert world.ask("GET", "/v2/health/live") == (200, {"live": True})
    assert world.ask("GET", "/v2/models/churn/ready")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/churn", 405),
        ("GET", "/v2/models/churn/infer", 405),
        ("GET", "/v2/models/churn/versions", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2x", 404),
        ("POST", "/v2", 405),
    ],
)
def test_errors_are_one_string(world, method, path, status):
    found, answer = world.ask(method, path)
    assert (found, list(answer), type(answer["error"])) == (status, ["error"], str)


def test_a_failing_row_fails_the_request(make_world):
    world = make_world()
    endpoint = world.endpoint(face(lambda row: 1 / row["x"]))
    status, answer = world.ask("POST", "/v2/models/churn/infer", {"inputs": [tensor("x", [0.0])]})
    assert status == 422
    assert answer["error"].startswith("model_failed: ")
    assert world.counts(endpoint) == {"control": (0, 1)}
