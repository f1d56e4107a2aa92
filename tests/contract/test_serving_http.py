"""The data plane over real sockets: worker processes, real models, both protocols."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modelyard.serving import Lease, LoadRefused, TokenRule, TokenTable, write_tokens
from modelyard.serving.collector import Collector
from modelyard.storage.predictions import PredictionStore
from unit.serving.fleet import (
    NAMES,
    Client,
    Fleet,
    endpoint,
    expected,
    lightgbm_folder,
    linear_folder,
    python_folder,
    row,
    split,
    training_data,
    until,
    variant,
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    fleet = Fleet(tmp_path_factory.mktemp("home"))
    fleet.start()
    yield fleet
    fleet.close()


@pytest.fixture
def own_fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.close()


@pytest.fixture
def client(fleet):
    client = fleet.client()
    yield client
    client.close()


def table_rows(seed, count, *, city=True):
    frame, _ = training_data(seed, rows=count)
    return (frame if city else frame[list(NAMES)]).to_dict("records")


def scores(answer):
    return [prediction["score"] for prediction in answer["predictions"]]


class TestAnswers:
    def test_lightgbm_with_categories_is_bit_equal_to_the_model(self, fleet, client):
        folder = lightgbm_folder(1)
        fleet.publish(endpoint(variant(fleet.home, folder)))
        rows = table_rows(5, 50)
        single = [scores(client.predict({**one, "customer": i}))[0] for i, one in enumerate(rows)]
        batch = scores(client.predict({"rows": rows}))
        assert single == batch == expected(folder, rows)
        assert fleet.publisher.workers()[0].models[0].engine == "lightgbm-c"

    def test_a_linear_model_equals_the_model_to_rounding(self, fleet, client):
        folder = linear_folder(2)
        fleet.publish(endpoint(variant(fleet.home, folder)))
        rows = table_rows(5, 20, city=False)
        assert scores(client.predict(rows)) == pytest.approx(expected(folder, rows), rel=1e-12)

    def test_a_pickled_model_answers_by_its_own_code(self, fleet, client, tmp_path):
        from sklearn.ensemble import RandomForestClassifier

        from modelyard.models import save_model

        frame, target = training_data(3)
        numbers = frame[list(NAMES)]
        labels = np.where(target == 1, "leaves", "stays")
        forest = RandomForestClassifier(5, random_state=0).fit(numbers, labels)
        save_model(forest, tmp_path / "forest", data=numbers)
        fleet.publish(endpoint(variant(fleet.home, tmp_path / "forest")))
        answer = client.predict({"rows": numbers[:20].to_dict("records")})
        assert scores(answer) == forest.predict_proba(numbers[:20])[:, 1].tolist()
        assert [p["label"] for p in answer["predictions"]] == forest.predict(numbers[:20]).tolist()

    def test_both_protocols_say_the_same(self, fleet, client):
        fleet.publish(endpoint(variant(fleet.home, linear_folder(2), version=7)))
        rows = table_rows(6, 8, city=False)
        native = scores(client.predict({"rows": rows}))
        matrix = {"name": "input-0", "shape": [8, 5], "datatype": "FP64", "data": [list(r.values()) for r in rows]}
        columns = [{"name": name, "shape": [8], "datatype": "FP64", "data": [r[name] for r in rows]} for name in NAMES]
        for inputs in ([matrix], columns):
            status, answer = client.ask("POST", "/v2/models/churn/infer", {"id": "q", "inputs": inputs})
            assert (status, answer["id"], answer["model_version"]) == (200, "q", "7")
            assert answer["outputs"][0]["data"] == native

    def test_an_unknown_category_is_predicted_with_a_warning(self, fleet, client):
        fleet.publish(endpoint(variant(fleet.home, lightgbm_folder(1))))
        (prediction,) = client.predict({**row(1), "city": "Atlantis"})["predictions"]
        assert prediction["warnings"] == [{"code": "unknown_category", "column": "city", "got": "Atlantis"}]
        assert 0 < prediction["score"] < 1

    @pytest.mark.parametrize(
        ("change", "code", "column"),
        [
            ({"x1": None}, "null_not_allowed", "x1"),
            ({"x1": "1"}, "wrong_type", "x1"),
            ({"x1": True}, "wrong_type", "x1"),
            ({"city": 5}, "wrong_type", "city"),
            ({"x9": 1}, "unexpected_column", "x9"),
        ],
    )
    def test_a_row_that_does_not_fit_is_told_where(self, fleet, client, change, code, column):
        fleet.publish(endpoint(variant(fleet.home, lightgbm_folder(1))))
        status, answer = client.ask("POST", "/predict/churn", {"rows": [row(1), {**row(1), **change}]})
        assert (status, answer["error"]["code"], answer["error"]["column"]) == (422, code, column)
        assert answer["error"]["row"] == 1

    def test_a_missing_column_is_named_with_its_nearest(self, fleet, client):
        fleet.publish(endpoint(variant(fleet.home, lightgbm_folder(1))))
        given = row(1)
        given["ctiy"] = given.pop("city")
        _, answer = client.ask("POST", "/predict/churn", given)
        assert (answer["error"]["code"], answer["error"]["near"]) == ("missing_column", "ctiy")

    def test_a_worker_imports_no_model_library_for_native_engines(self, fleet):
        fleet.publish(endpoint(variant(fleet.home, lightgbm_folder(1))))
        mapped = Path(f"/proc/{fleet.processes[0].pid}/maps").read_text()
        assert "lib_lightgbm" in mapped


class TestSwap:
    def test_no_request_fails_while_versions_change_under_load(self, fleet):
        folders = {1: lightgbm_folder(1), 2: lightgbm_folder(11)}
        given = row(4)
        wanted = {version: expected(folder, [given])[0] for version, folder in folders.items()}
        fleet.publish(endpoint(variant(fleet.home, folders[1])))
        done, failures, seen = threading.Event(), [], Counter()

        def load(fresh):
            client = fleet.client()
            while not done.is_set():
                try:
                    if fresh:
                        client.close()
                        client = fleet.client()
                    status, answer = client.ask("POST", "/predict/churn", given)
                    (prediction,) = answer["predictions"]
                    assert (status, prediction["score"]) == (200, wanted[prediction["version"]])
                    seen[prediction["version"]] += 1
                except Exception as error:  # noqa: BLE001 - any failure at all is what this test looks for
                    failures.append(repr(error))
                    return
            client.close()

        threads = [threading.Thread(target=load, args=(fresh,)) for fresh in (False, False, True)]
        for thread in threads:
            thread.start()
        for turn in range(6):
            version = 2 if turn % 2 == 0 else 1
            fleet.publish(endpoint(variant(fleet.home, folders[version], version=version)))
            with_new = fleet.client()
            assert with_new.predict(given)["predictions"][0]["version"] == version
            with_new.close()
            target = seen[version] + 20
            until(lambda v=version, t=target: seen[v] >= t or failures, what="load on the new version")
        done.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert min(seen.values()) > 50

    def test_a_damaged_version_is_refused_and_the_old_one_goes_on(self, fleet, client, tmp_path):
        good = endpoint(variant(fleet.home, lightgbm_folder(1)))
        fleet.publish(good)
        bad = variant(fleet.home, lightgbm_folder(11), version=2)
        folder = fleet.publisher.paths.models / bad.digest
        spare = tmp_path / "spare"
        shutil.move(folder, spare)
        shutil.copytree(spare, folder)
        (folder / "MLmodel").write_text("changed")
        with pytest.raises(LoadRefused, match="digest"):
            fleet.publish(replace(good, variants=(bad,)))
        assert client.predict(row(1))["predictions"][0]["version"] == 1
        with pytest.raises(LoadRefused, match="'canary'"):
            fleet.publish(split(good, replace(bad, name="canary"), 5_000))
        assert {client.predict(row(1))["predictions"][0]["version"] for _ in range(30)} == {1}
        assert client.ask("GET", "/health/ready")[0] == 200
        shutil.rmtree(folder)
        shutil.move(spare, folder)

    def test_a_model_that_raises_counts_against_its_variant(self, fleet, client, tmp_path):
        control = endpoint(variant(fleet.home, linear_folder(2)))
        broken = python_folder(tmp_path / "broken", lambda frame: 1 / (frame["x0"] - 1.5))
        canary = variant(fleet.home, broken, name="canary", version=9)
        fleet.publish(split(control, canary, 10_000))
        given = {**row(2, city=False), "x0": 1.5}
        status, answer = client.ask("POST", "/predict/churn", given)
        assert (status, answer["error"]["code"]) == (422, "no_finite_score")

        def errors():
            (status,) = fleet.publisher.workers()
            return next(v.errors for v in status.variants if v.variant == "canary")

        assert until(errors) == 1

    def test_the_token_table_is_taken_while_running(self, fleet, client):
        from hashlib import sha256

        fleet.publish(endpoint(variant(fleet.home, lightgbm_folder(1))))
        assert client.ask("POST", "/predict/churn", row(1))[0] == 200
        path = fleet.publisher.paths.tokens
        write_tokens(path, TokenTable((TokenRule(sha256(b"secret").hexdigest(), "ada"),)))
        until(lambda: client.ask("POST", "/predict/churn", row(1))[0] == 401)
        assert client.ask("POST", "/predict/churn", row(1), authorization="Bearer secret")[0] == 200
        path.unlink()
        until(lambda: client.ask("POST", "/predict/churn", row(1))[0] == 200)


class TestRouting:
    def test_raising_a_weight_moves_customers_only_to_the_canary(self, fleet, client):
        control = endpoint(variant(fleet.home, lightgbm_folder(1)))
        canary = variant(fleet.home, lightgbm_folder(11), name="canary", version=2)
        body = {"rows": [{**row(1), "customer": f"c{i}"} for i in range(400)]}
        before: set[int] = set()
        for weight in (0, 500, 2_500, 10_000):
            fleet.publish(split(control, canary, weight))
            versions = [p["version"] for p in client.predict(body)["predictions"]]
            assert versions == [p["version"] for p in client.predict(body)["predictions"]]
            now = {i for i, version in enumerate(versions) if version == 2}
            assert before <= now
            assert len(now) / 400 == pytest.approx(weight / 10_000, abs=0.05)
            before = now

    def test_a_used_up_lease_sends_traffic_to_the_control_until_the_next(self, fleet, client):
        control = endpoint(variant(fleet.home, lightgbm_folder(1)))
        canary = variant(fleet.home, lightgbm_folder(11), name="canary", version=2)
        for turn, answers in enumerate((25, 10)):
            fleet.publish(split(control, canary, 10_000, lease=Lease(f"lease-{turn}-{time.monotonic()}", answers)))
            versions = [client.predict(row(1))["predictions"][0]["version"] for _ in range(40)]
            assert versions == [2] * answers + [1] * (40 - answers)

        def used():
            (status,) = fleet.publisher.workers()
            return next(v.lease_used for v in status.variants if v.variant == "canary") == 10

        assert until(used)

    def test_every_answer_is_found_by_the_collector_with_what_was_asked(self, fleet, client, sqlite):
        store = PredictionStore(sqlite, fleet.home / "predictions")
        collector = Collector(fleet.publisher.paths, database=sqlite, store=store)
        while collector.collect():
            pass
        shadow = variant(fleet.home, lightgbm_folder(11), name="next", role="shadow", version=2)
        route = endpoint(variant(fleet.home, lightgbm_folder(1)), time_column="at", name="logged")
        fleet.publish(replace(route, variants=(*route.variants, shadow)))
        told = {}
        for i in range(20):
            given = {**row(i), "customer": i, "at": f"2026-03-01T00:00:{i:02d}Z"}
            answer = client.predict(given, "logged")
            assert answer["captured"] is True
            told[answer["predictions"][0]["prediction_id"]] = (given, answer["predictions"][0])
        until(lambda: collector.collect() == 0 and store.scan("logged").num_rows == 40)
        found = store.scan("logged").to_pylist()
        assert Counter(r["role"] for r in found) == {"control": 20, "shadow": 20}
        for r in found:
            given, prediction = told[r["prediction_id"]]
            assert {name: r[f"f.{name}"] for name in (*NAMES, "city")} == row(int(given["customer"]))
            assert r["entity_key"] == str(given["customer"])
            assert r["time"].isoformat() == given["at"].replace("Z", "+00:00")
            if r["role"] == "control":
                assert (r["score"], r["version"]) == (prediction["score"], 1)
            else:
                assert r["score"] == expected(lightgbm_folder(11), [row(int(given["customer"]))])[0]


VALID = json.dumps({"rows": [{**row(1), "customer": "a"}], "id": "i"}).encode()
TENSOR = {"name": "x0", "shape": [1], "datatype": "FP64", "data": [1.0]}
ODD = ["null", "true", "[]", "{}", '""', "1e999", "-0", "9" * 400, '"\\ud800"', "NaN", "[[[1]]]", '{"x0":{}}']
ODD_TENSOR = [-1, 2**70, [2**40], [[1]], None, "FP16", {}, [1] * 50, "\u0000", [None], [True], 1e308]
DEEP = [b"[", b'{"rows":', b'{"a":', b'{"inputs":[', b"[{"]
PATHS = ["/predict/churn", "/v2/models/churn/infer", "/predict/churn/versions/1", "/v2/models/churn/versions/x/infer"]
HEADERS = {
    "Content-Type": (0.2, ["text/plain", "application/json;x", "", "application/octet-stream", "\u00ff"]),
    "X-Deadline-Ms": (0.1, ["", "-1", "1e9", "x", "99999999999999999999"]),
    "Authorization": (0.1, ["Bearer", "Bearer \u00ff", "Basic x", ""]),
    "Host": (0.05, ["", "evil.example", "127.0.0.1:x:y", "[::1"]),
}


def flipped(rng: random.Random, body: bytes) -> bytes:
    data = bytearray(body)
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def with_odd_values(rng: random.Random) -> bytes:
    fields = {**row(1), "customer": "a"}
    for name in rng.sample(list(fields), rng.randint(1, 3)):
        fields[name] = "@@"
    text = json.dumps({"rows": [fields]})
    while '"@@"' in text:
        text = text.replace('"@@"', rng.choice(ODD), 1)
    return text.encode()


def with_odd_tensors(rng: random.Random) -> bytes:
    broken = {**TENSOR, rng.choice(list(TENSOR)): rng.choice(ODD_TENSOR)}
    return json.dumps({"inputs": [broken] * rng.randint(0, 3)}).encode()


BODIES = [
    lambda rng: flipped(rng, VALID),
    lambda rng: flipped(rng, json.dumps({"inputs": [TENSOR]}).encode()),
    lambda rng: VALID[: rng.randrange(len(VALID))],
    lambda rng: VALID + VALID[: rng.randrange(1, 30)],
    with_odd_values,
    with_odd_tensors,
    lambda rng: rng.choice(DEEP) * rng.randint(1, 5_000),
    lambda rng: rng.choice(ODD).encode(),
    lambda rng: rng.randbytes(rng.randint(0, 200)),
    lambda rng: b'{"rows":[' + b",".join([b'{"x0":1}'] * rng.randint(1, 300)) + b"]}",
]


def hostile(seed: int) -> tuple[str, str, bytes, dict[str, str]]:
    """Make one malformed request: method, path, body and headers."""
    rng = random.Random(seed)
    body = rng.choice(BODIES)(rng)
    path = rng.choice(PATHS) if rng.random() < 0.9 else "/" + "".join(rng.choices("/v2%.predict\u00e9", k=12))
    headers = {name: rng.choice(values) for name, (share, values) in HEADERS.items() if rng.random() < share}
    method = "POST" if rng.random() < 0.95 else rng.choice(["GET", "PUT", "HEAD", "OPTIONS", "PATCH"])
    return method, path, body, headers


class TestHostileRequests:
    def test_two_thousand_malformed_requests_never_fail_the_worker(self, fleet):
        fleet.publish(endpoint(variant(fleet.home, lightgbm_folder(1))))
        client, statuses = fleet.client(), Counter()
        for seed in range(2_000):
            method, path, body, headers = hostile(seed)
            client.send(method, path, body, headers)
            if method == "HEAD":
                client.close()
                client = fleet.client()
                continue
            try:
                status, given, answer = client.receive()
            except ConnectionError:
                pytest.fail(f"request {seed} was not answered")
            assert status < 500 or json.loads(answer)["error"]["code"] == "deadline_exceeded", (seed, status, answer)
            statuses[status] += 1
            if given["content-type"].startswith("application/json"):
                document = json.loads(answer)
                assert status == 200 or "error" in document, seed
            if given.get("connection") == "close":
                client.close()
                client = fleet.client()
        assert {400, 403, 404, 405, 415, 422} <= set(statuses)
        assert sum(statuses.values()) > 1_900
        assert fleet.processes[0].poll() is None
        assert client.predict(row(1))["captured"] is True
        client.close()
        (found,) = fleet.publisher.workers()
        assert found.rejected.get("internal", 0) == 0

    def test_a_body_over_the_limit_is_refused_before_it_is_sent(self, fleet):
        fleet.publish(endpoint(variant(fleet.home, lightgbm_folder(1))))
        client = fleet.client()
        client.send("POST", "/predict/churn", b"{", {"Content-Length": str(10_000_001)})
        status, headers, body = client.receive()
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(body)["error"]["code"] == "too_large"
        client.close()

    def test_an_endless_body_is_cut_off(self, fleet):
        client = fleet.client()
        client.send("POST", "/predict/churn", b"", {"Content-Length": None, "Transfer-Encoding": "chunked"})
        chunk = b"%x\r\n" % (1 << 20) + b" " * (1 << 20) + b"\r\n"
        with pytest.raises((ConnectionError, TimeoutError)):
            for _ in range(64):
                client.socket.sendall(chunk)
        client.close()

    def test_slow_requests_do_not_hold_others_up(self, fleet):
        fleet.publish(endpoint(variant(fleet.home, lightgbm_folder(1))))
        slow = [fleet.client() for _ in range(20)]
        for client in slow:
            client.send("POST", "/predict/churn", b"{", {"Content-Length": "500"})
        quick = fleet.client()
        assert quick.predict(row(1))["captured"] is True
        for client in (*slow, quick):
            client.close()

    def test_foreign_hosts_and_origins_are_refused(self, fleet, client):
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
            client.send("POST", "/predict/churn", b"{}", headers)
            assert client.receive()[0] == 403


class TestLife:
    def test_it_finishes_what_is_under_way_and_exits_cleanly(self, own_fleet, tmp_path):
        fleet = own_fleet
        fleet.start()
        fleet.publish(endpoint(variant(tmp_path, lightgbm_folder(1))))
        body = json.dumps(row(1)).encode()
        late = fleet.client()
        late.send("POST", "/predict/churn", body[:10], {"Content-Length": str(len(body))})
        process = fleet.processes[0]
        until(lambda: late.socket.send(b"") == 0)
        process.terminate()
        until(lambda: fleet.publisher.workers() == [] or fleet.publisher.workers()[0].draining)
        late.socket.sendall(body[10:])
        status, headers, answer = late.receive()
        assert (status, headers["connection"]) == (200, "close")
        assert json.loads(answer)["captured"] is True
        late.close()
        assert fleet.stop() == 0
        assert fleet.publisher.workers() == []

    def test_a_worker_that_starts_later_loads_before_it_takes_connections(self, own_fleet, tmp_path):
        fleet = own_fleet
        fleet.start(0, workers=2)
        fleet.publish(endpoint(variant(tmp_path, lightgbm_folder(1))))
        fleet.start(1, workers=2)

        def both_have_answered():
            client = fleet.client()
            assert client.predict(row(1))["captured"] is True
            client.close()
            return min(s.variants[0].answers for s in fleet.publisher.workers()) > 0

        until(both_have_answered)
        assert [s.generation for s in fleet.publisher.workers()] == [1, 1]

    def test_a_second_worker_of_the_same_number_is_refused(self, fleet):
        import subprocess
        import sys

        command = [sys.executable, "-m", "modelyard.serving.worker", "--home", str(fleet.home)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=fleet.environment)
        assert found.returncode == 1
        assert "Worker 0 runs already" in found.stderr

    def test_readiness_waits_for_the_routes(self, own_fleet, tmp_path):
        fleet = own_fleet
        fleet.start()
        client = Client(fleet.port)
        assert client.ask("GET", "/health/live")[0] == 200
        assert client.ask("GET", "/v2/health/ready")[0] == 503
        fleet.publish(endpoint(variant(tmp_path, lightgbm_folder(1))))
        assert client.ask("GET", "/v2/health/ready")[0] == 200
        client.close()
