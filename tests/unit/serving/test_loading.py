from dataclasses import replace

import pytest

from modelyard.models import BadModelFolder, Predictor, folder_digest, save_model
from modelyard.serving.application import Live
from modelyard.serving.capture import read_descriptor
from modelyard.serving.ids import PredictionIds
from modelyard.serving.loading import Loader, face_of, load_face
from modelyard.serving.model import Lease, RouteTable
from modelyard.serving.publisher import ServingPaths
from modelyard.serving.tally import TallyBook
from unit.serving.fleet import (
    add_model,
    endpoint,
    lightgbm_folder,
    linear_folder,
    python_folder,
    row,
    split,
    training_data,
    variant,
)
from unit.serving.worlds import face


@pytest.fixture
def make_loader(tmp_path):
    books = []

    def make(load=load_face, **given):
        books.append(TallyBook(tmp_path / f"{len(books)}.tallies"))
        fields = {"worker": 0, "workers": 1, "limit": 10, "ids": PredictionIds()}
        return Loader(ServingPaths(tmp_path), book=books[-1], load_face=load, **{**fields, **given})

    yield make
    for book in books:
        book.close()


class Shelf:
    """Loads plain functions by digest and counts how often."""

    def __init__(self, **broken):
        self.loads = []
        self.broken = broken

    def __call__(self, folder, digest):
        self.loads.append(digest[:8])
        if digest in self.broken:
            raise self.broken[digest]
        return face()


@pytest.fixture
def route(tmp_path):
    control = variant(tmp_path, lightgbm_folder(1))
    canary = variant(tmp_path, linear_folder(2), name="canary", version=2)
    return split(endpoint(control), canary, 1_000, lease=Lease("l1", 11))


def test_a_model_that_stays_is_not_loaded_again(make_loader, route):
    shelf = Shelf()
    loader = make_loader(shelf)
    first = loader.load(RouteTable(1, (route,)), Live())
    second = loader.load(RouteTable(2, (split(route, route.variants[1], 5_000),)), first.live)
    assert len(shelf.loads) == 2
    assert second.live.endpoints["churn"].control.face is first.live.endpoints["churn"].control.face
    assert {model.digest for model in second.models} == {v.digest for v in route.variants}
    third = loader.load(RouteTable(3, (endpoint(variant_of(route)),)), second.live)
    assert [model.digest for model in third.models] == [route.control.digest]
    loader.load(RouteTable(4, (route,)), third.live)
    assert len(shelf.loads) == 3


def variant_of(route):
    return replace(route.control, weight=10_000)


def test_a_canary_that_cannot_be_loaded_is_left_out(make_loader, route):
    digest = route.variants[1].digest
    for error in (BadModelFolder("why"), RuntimeError("why"), SystemExit("why")):
        loaded = make_loader(Shelf(**{digest: error})).load(RouteTable(1, (route,)), Live())
        (failure,) = loaded.failed
        assert (failure.variant, failure.version) == ("canary", 2)
        assert "why" in failure.message
        assert loaded.live.ready
        assert [v.route.name for v in loaded.live.endpoints["churn"].variants] == ["control"]


def test_without_its_control_an_endpoint_stays_as_it_was(make_loader, route):
    broken = Shelf()
    loader = make_loader(broken)
    before = loader.load(RouteTable(1, (route,)), Live())
    other = endpoint(variant(loader_home(loader), linear_folder(3), version=5))
    broken.broken[other.control.digest] = BadModelFolder("why")
    after = loader.load(RouteTable(2, (other,)), before.live)
    assert after.live.endpoints["churn"] is before.live.endpoints["churn"]
    assert after.live.ready
    assert len(after.models) == 2
    assert after.failed[0].version == 5


def loader_home(loader):
    return loader._paths.home


def test_without_control_and_past_an_endpoint_is_not_served(make_loader, route):
    loader = make_loader(Shelf(**{route.control.digest: BadModelFolder("why")}))
    loaded = loader.load(RouteTable(1, (route,)), Live())
    assert not loaded.live.ready
    assert "why" in loaded.live.unserved["churn"]


def test_each_worker_takes_its_share_of_a_lease(make_loader, route):
    shares = []
    for worker in range(3):
        loaded = make_loader(Shelf(), worker=worker, workers=3).load(RouteTable(1, (route,)), Live())
        shares.append(loaded.live.endpoints["churn"].variants[1].tally.share)
    assert shares == [4, 4, 3]


def test_the_descriptor_names_the_columns_of_all_variants(make_loader, route):
    loader = make_loader()
    loaded = loader.load(RouteTable(1, (route,)), Live())
    found = read_descriptor(loader._paths.descriptors, loaded.live.endpoints["churn"].descriptor)
    assert [name for name, _ in found.columns] == ["x0", "x1", "x2", "x3", "x4", "city"]
    assert [(v.name, v.version) for v in found.variants] == [("control", 1), ("canary", 2)]


def test_a_folder_that_was_changed_is_refused(tmp_path):
    digest = add_model(tmp_path, lightgbm_folder(1))
    folder = ServingPaths(tmp_path).models / digest
    (folder / "extra").write_text("x")
    with pytest.raises(BadModelFolder, match="digest"):
        load_face(folder, digest)


def test_a_model_that_fails_on_a_plausible_row_is_refused(tmp_path):
    def broken(frame):
        raise RuntimeError("always")

    python_folder(tmp_path / "broken", lambda frame: broken(frame) if len(frame) == 1 else frame["x0"])
    with pytest.raises(RuntimeError, match="always"):
        load_face(tmp_path / "broken", folder_digest(tmp_path / "broken"))


@pytest.mark.parametrize("positive", ["yes", "no"])
@pytest.mark.parametrize("kind", ["lightgbm", "linear"])
def test_the_label_of_one_row_is_the_label_of_many(tmp_path, kind, positive):
    import numpy as np
    from lightgbm import LGBMClassifier
    from sklearn.linear_model import LogisticRegression

    frame, target = training_data(8)
    numbers = frame.drop(columns="city")
    labels = np.where(target == 1, "yes", "no")
    model = LogisticRegression() if kind == "linear" else LGBMClassifier(n_estimators=5, n_jobs=1, verbosity=-1)
    save_model(model.fit(numbers, labels), tmp_path / "m", data=numbers, positive_label=positive)
    predictor = Predictor.load(tmp_path / "m", trust=False)
    assert predictor.engine != "own"
    answers = face_of(predictor)
    rows = numbers.to_dict("records")
    many = answers.predict(rows)
    ones = [answers.predict([one]) for one in rows]
    assert [one.labels[0] for one in ones] == many.labels == model.predict(numbers).tolist()
    assert [one.scores[0] for one in ones] == pytest.approx(many.scores, rel=1e-12)
    half = answers.predict([dict.fromkeys(numbers.columns, 0.0)])
    assert half.labels[0] in {"yes", "no"}


def test_a_regressor_has_scores_only(tmp_path):
    from sklearn.linear_model import LinearRegression

    frame, target = training_data(8)
    numbers = frame.drop(columns="city")
    save_model(LinearRegression().fit(numbers, target * 1.5), tmp_path / "m", data=numbers)
    answers = face_of(Predictor.load(tmp_path / "m", trust=False))
    found = answers.predict([row(1, city=False)])
    assert (found.labels, answers.classes, answers.outputs) == ([None], (), 1)


def test_a_multiclass_model_gives_one_output_a_class(tmp_path):
    from sklearn.linear_model import LogisticRegression

    frame, _ = training_data(8)
    numbers = frame.drop(columns="city")
    model = LogisticRegression().fit(numbers, frame["city"].astype(str))
    save_model(model, tmp_path / "m", data=numbers)
    answers = face_of(Predictor.load(tmp_path / "m", trust=False))
    found = answers.predict(numbers[:3].to_dict("records"))
    assert found.scores == [None] * 3
    assert found.outputs == pytest.approx(model.predict_proba(numbers[:3]), rel=1e-9)
    assert found.labels == model.predict(numbers[:3]).tolist()
    assert answers.outputs == 3
