import json
import os
import subprocess
import sys
import threading

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import LinearSVC

from modelyard.errors import Invalid
from modelyard.models import (
    NoFiniteScore,
    NullNotAllowed,
    Predictor,
    UnexpectedColumn,
    UnknownCategory,
    read_info,
    record_verification,
    save_model,
    verify_engine,
)
from unit.models.model_samples import LGBM, categories, numbers, records, target, texts

NUMBERS = ["f0", "f1", "f2", "f3", "count"]


def encoded(*, one_hot=None, scale=True):
    steps = [SimpleImputer(strategy="median"), *([StandardScaler()] if scale else [])]
    return ColumnTransformer(
        [
            ("n", make_pipeline(*steps), NUMBERS),
            ("c", one_hot or OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ]
    )


def saved(model, folder, data, **options):
    info = save_model(model, folder / "m", data=data, **options)
    return info, verify_engine(folder / "m", data, trust=True)


@pytest.mark.parametrize(
    ("frame", "classes"),
    [(numbers(), 2), (numbers(nulls=True), 2), (categories(), 2), (categories(), 3)],
    ids=["plain", "nulls", "categories", "three classes"],
)
def test_lightgbm_classifier_is_bit_equal_without_its_pickle(tmp_path, frame, classes):
    model = lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame, classes))
    saved(model, tmp_path, frame)
    predictor = Predictor.load(tmp_path / "m", trust=False)
    assert predictor.engine == "lightgbm-c"
    expected = model.predict_proba(frame)
    expected = expected[:, 1] if classes == 2 else expected
    np.testing.assert_array_equal(predictor.predict(frame).scores, expected)
    rows = records(frame)[:50]
    one_by_one = np.concatenate([predictor.predict_rows([row]).scores for row in rows])
    np.testing.assert_array_equal(one_by_one, expected[:50])
    np.testing.assert_array_equal(predictor.predict_rows(rows).scores, expected[:50])
    np.testing.assert_array_equal(predictor.predict(frame).labels, model.predict(frame))
    assert predictor.classes == tuple(model.classes_.tolist())


def test_lightgbm_regression_and_ranking_objectives_are_bit_equal(tmp_path):
    frame = categories()
    model = lightgbm.LGBMRegressor(objective="poisson", **LGBM).fit(frame, frame["count"] + 1)
    _, record = saved(model, tmp_path, frame)
    assert record.passed
    assert record.max_abs_difference == 0.0
    np.testing.assert_array_equal(
        Predictor.load(tmp_path / "m", trust=False).predict(frame).output, model.predict(frame)
    )


def test_an_unknown_pandas_category_predicts_as_lightgbm_does_and_warns(tmp_path):
    frame = categories()
    model = lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame))
    saved(model, tmp_path, frame)
    predictor = Predictor.load(tmp_path / "m", trust=False)
    row = {**records(frame)[0], "city": "Atlantis", "plan": 77}
    batch = predictor.predict_rows([row])
    strange = frame.iloc[:1].assign(city=pd.Categorical(["Atlantis"]), plan=pd.Categorical([77]))
    np.testing.assert_array_equal(batch.scores, model.predict_proba(strange)[:, 1])
    assert [(w.column, w.got) for w in batch.warnings] == [("city", "Atlantis"), ("plan", "77")]


def test_an_early_stopped_lightgbm_uses_its_best_iteration(tmp_path):
    frame = numbers()
    label = target(frame)
    booster = lightgbm.train(
        {"objective": "binary", "learning_rate": 0.4, "verbose": -1, "num_threads": 1},
        lightgbm.Dataset(frame[:300], label[:300], free_raw_data=False),
        200,
        valid_sets=[lightgbm.Dataset(frame[300:], label[300:])],
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
        keep_training_booster=True,
    )
    assert 0 < booster.best_iteration < booster.num_trees()
    saved(booster, tmp_path, frame)
    found = Predictor.load(tmp_path / "m", trust=False).predict(frame).scores
    np.testing.assert_array_equal(found, booster.predict(frame))
    assert not np.array_equal(found, booster.predict(frame, num_iteration=200))


def test_a_lightgbm_booster_needs_no_pickle_at_all(tmp_path):
    frame = categories()
    booster = lightgbm.train(
        {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1},
        lightgbm.Dataset(frame, pd.factorize(target(frame, 3))[0]),
        8,
    )
    info, record = saved(booster, tmp_path, frame)
    assert not info.needs_trust
    assert record.passed
    batch = Predictor.load(tmp_path / "m", trust=False).predict(frame)
    np.testing.assert_array_equal(batch.scores, booster.predict(frame))
    np.testing.assert_array_equal(batch.output, batch.scores)
    own = Predictor.load(tmp_path / "m", trust=False, engine="own")
    assert own.engine == "own"
    np.testing.assert_array_equal(own.predict(frame).scores, batch.scores)


@pytest.mark.parametrize("trained_on", ["frame", "array"])
def test_lightgbm_trained_on_an_array_takes_either(tmp_path, trained_on):
    frame = numbers(nulls=True)
    data = frame if trained_on == "frame" else frame.to_numpy()
    model = lightgbm.LGBMRegressor(**LGBM).fit(data, frame["f0"])
    saved(model, tmp_path, data)
    predictor = Predictor.load(tmp_path / "m", trust=False)
    np.testing.assert_array_equal(predictor.predict(frame.to_numpy()).scores, model.predict(data))
    rows = [list(record.values()) for record in records(frame)[:40]]
    np.testing.assert_array_equal(predictor.predict_rows(rows).scores, model.predict(data)[:40])


def test_a_custom_objective_is_left_to_lightgbm(tmp_path):
    frame = numbers()
    model = lightgbm.LGBMRegressor(objective=squared, **LGBM).fit(frame, frame["f0"])
    info, _ = saved(model, tmp_path, frame)
    assert info.native is None
    found = Predictor.load(tmp_path / "m", trust=True).predict(frame)
    np.testing.assert_array_equal(found.scores, model.predict(frame))


def squared(truth, guess):
    return guess - truth, np.ones_like(guess)


def test_prediction_parameters_on_a_wrapper_are_left_to_lightgbm(tmp_path):
    frame = numbers()
    model = lightgbm.LGBMClassifier(pred_early_stop=True, pred_early_stop_margin=0.1, **LGBM).fit(frame, target(frame))
    info, _ = saved(model, tmp_path, frame)
    assert info.native is None


@pytest.mark.parametrize(
    ("model", "classes", "engine"),
    [
        (LogisticRegression(), 2, "linear"),
        (LogisticRegression(max_iter=500), 3, "linear"),
        (LinearRegression(), 0, "linear"),
        (make_pipeline(StandardScaler(), LogisticRegression()), 2, "pipeline+linear"),
        (make_pipeline(StandardScaler(with_mean=False), Ridge()), 0, "pipeline+linear"),
        (
            make_pipeline(SimpleImputer(), StandardScaler(with_std=False), LogisticRegression()),
            3,
            "pipeline+linear",
        ),
    ],
)
def test_linear_models_are_lifted_and_equal_to_rounding(tmp_path, model, classes, engine):
    frame = numbers().assign(count=lambda f: f["count"] / 40)
    label = target(frame, classes) if classes else frame["f0"] * 3 + 1
    model.fit(frame, label)
    _, record = saved(model, tmp_path, frame)
    assert (record.engine, record.passed, record.label_flips) == (engine, True, 0)
    assert record.max_abs_difference <= 1e-12
    predictor = Predictor.load(tmp_path / "m", trust=False)
    batch = predictor.predict(frame)
    expected = model.predict_proba(frame) if classes else model.predict(frame)
    np.testing.assert_allclose(batch.scores, expected[:, 1] if classes == 2 else expected, rtol=0, atol=1e-12)
    if classes:
        np.testing.assert_array_equal(batch.output, model.predict(frame))


def test_a_linear_model_on_one_row_agrees_with_many(tmp_path):
    frame = numbers()
    model = LogisticRegression(max_iter=2000).fit(frame, target(frame))
    saved(model, tmp_path, frame)
    predictor = Predictor.load(tmp_path / "m", trust=False)
    many = predictor.predict(frame[:20]).scores
    single = [predictor.predict_rows([row]).scores[0] for row in records(frame)[:20]]
    np.testing.assert_allclose(single, many, rtol=0, atol=1e-15)


def test_extreme_sums_neither_overflow_nor_warn(tmp_path):
    frame = numbers() * 1000
    model = LogisticRegression(max_iter=2000).fit(frame, target(frame))
    saved(model, tmp_path, frame)
    scores = Predictor.load(tmp_path / "m", trust=False).predict(frame * 1e6).scores
    assert np.isin([scores.min(), scores.max()], [0.0, 1.0]).all()


@pytest.mark.parametrize(
    ("build", "exact"),
    [
        (lambda: make_pipeline(encoded(), LogisticRegression(max_iter=1000)), False),
        (lambda: make_pipeline(encoded(), lightgbm.LGBMClassifier(**LGBM)), True),
        (
            lambda: make_pipeline(encoded(one_hot=OneHotEncoder(drop="first")), LogisticRegression(max_iter=1000)),
            False,
        ),
        (
            lambda: make_pipeline(
                encoded(
                    one_hot=make_pipeline(
                        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
                    ),
                    scale=False,
                ),
                lightgbm.LGBMClassifier(**LGBM),
            ),
            True,
        ),
        (
            lambda: make_pipeline(
                ColumnTransformer(
                    [("c", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["city"])],
                    remainder="passthrough",
                ),
                lightgbm.LGBMClassifier(**LGBM),
            ),
            True,
        ),
    ],
    ids=["one-hot linear", "one-hot trees", "dropped level", "imputed text", "ordinal trees"],
)
def test_a_column_transformer_is_lifted(tmp_path, build, exact):
    frame = texts()
    model = build().fit(frame, target(frame))
    _, record = saved(model, tmp_path, frame)
    assert record.engine.startswith("pipeline+")
    assert record.passed
    predictor = Predictor.load(tmp_path / "m", trust=False)
    rows = records(frame)
    found = np.concatenate([predictor.predict_rows([row]).scores for row in rows[:60]])
    expected = model.predict_proba(frame)[:60, 1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=0 if exact else 1e-12)


def test_an_unknown_category_goes_through_a_lifted_pipeline_as_scikit_learn_would(tmp_path):
    frame = texts()
    model = make_pipeline(encoded(), lightgbm.LGBMClassifier(**LGBM)).fit(frame, target(frame))
    saved(model, tmp_path, frame)
    row = {**records(frame)[0], "city": "Atlantis"}
    batch = Predictor.load(tmp_path / "m", trust=False).predict_rows([row])
    expected = model.predict_proba(frame.iloc[:1].assign(city="Atlantis"))[:, 1]
    np.testing.assert_array_equal(batch.scores, expected)
    assert [w.code for w in batch.warnings] == ["unknown_category"]


def test_an_encoder_that_refuses_unknown_categories_still_does(tmp_path):
    frame = texts()
    strict = encoded(one_hot=OneHotEncoder(handle_unknown="error"))
    saved(make_pipeline(strict, LogisticRegression(max_iter=1000)).fit(frame, target(frame)), tmp_path, frame)
    predictor = Predictor.load(tmp_path / "m", trust=False)
    with pytest.raises(UnknownCategory, match="'city'"):
        predictor.predict_rows([{**records(frame)[0], "city": "Atlantis"}])


@pytest.mark.parametrize(
    "model",
    [
        HistGradientBoostingClassifier(max_iter=3),
        make_pipeline(SimpleImputer(), RandomForestClassifier(8, random_state=0)),
        make_pipeline(SimpleImputer(), CalibratedClassifierCV(lightgbm.LGBMClassifier(**LGBM), cv=2)),
        make_pipeline(SimpleImputer(), PolynomialFeatures(2), StandardScaler(), LogisticRegression()),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_what_cannot_be_lifted_exactly_predicts_by_its_own_code(tmp_path, model):
    frame = numbers(nulls=True)
    model.fit(frame, target(frame))
    info, record = saved(model, tmp_path, frame)
    assert info.native is None
    assert record.engine == "own"
    predictor = Predictor.load(tmp_path / "m", trust=True)
    assert predictor.engine == "own"
    np.testing.assert_array_equal(predictor.predict(frame).scores, model.predict_proba(frame)[:, 1])
    np.testing.assert_array_equal(
        predictor.predict_rows(records(frame)[:5]).scores, model.predict_proba(frame[:5])[:, 1]
    )


def test_a_classifier_without_probabilities_gives_its_decision_and_its_own_labels(tmp_path):
    frame = numbers()
    model = LinearSVC(max_iter=5000).fit(StandardScaler().fit_transform(frame), target(frame))
    data = StandardScaler().fit_transform(frame)
    info, _ = saved(model, tmp_path, data)
    assert info.traits.score_kind == "decision"
    batch = Predictor.load(tmp_path / "m", trust=True).predict(data)
    np.testing.assert_allclose(batch.scores, model.decision_function(data), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(batch.labels, model.predict(data))


@pytest.mark.parametrize("classes", [2, 3])
def test_xgboost_in_place_is_bit_equal(tmp_path, classes):
    frame = numbers(nulls=True)
    label = target(frame) if classes == 2 else pd.factorize(target(frame, 3), sort=True)[0]
    model = xgboost.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1).fit(frame, label)
    info, record = saved(model, tmp_path, frame)
    assert not info.needs_trust
    assert (record.engine, record.passed, record.max_abs_difference) == ("xgboost-inplace", True, 0.0)
    predictor = Predictor.load(tmp_path / "m", trust=False)
    expected = model.predict_proba(frame)
    np.testing.assert_array_equal(predictor.predict(frame).scores, expected[:, 1] if classes == 2 else expected)
    np.testing.assert_array_equal(predictor.predict(frame).labels, model.predict(frame))


def test_an_early_stopped_xgboost_uses_its_best_iteration(tmp_path):
    frame = numbers()
    label = target(frame)
    model = xgboost.XGBClassifier(n_estimators=150, learning_rate=0.5, early_stopping_rounds=3, n_jobs=1)
    model.fit(frame[:300], label[:300], eval_set=[(frame[300:], label[300:])], verbose=False)
    _, record = saved(model, tmp_path, frame)
    assert record.passed
    found = Predictor.load(tmp_path / "m", trust=False).predict(frame).scores
    np.testing.assert_array_equal(found, model.predict_proba(frame)[:, 1])
    everything = model.get_booster().inplace_predict(frame)
    assert not np.array_equal(found, everything)


def test_xgboost_with_pandas_categories_and_boosters(tmp_path):
    frame = categories()
    model = xgboost.XGBClassifier(n_estimators=6, enable_categorical=True, n_jobs=1).fit(frame, target(frame))
    saved(model, tmp_path / "a", frame)
    predictor = Predictor.load(tmp_path / "a/m", trust=False)
    assert predictor.engine == "own"
    np.testing.assert_array_equal(predictor.predict(frame).scores, model.predict_proba(frame)[:, 1])
    plain = numbers()
    booster = xgboost.train({"objective": "reg:squarederror", "nthread": 1}, xgboost.DMatrix(plain, plain["f0"]), 5)
    saved(booster, tmp_path / "b", plain)
    found = Predictor.load(tmp_path / "b/m", trust=False).predict(plain).scores
    np.testing.assert_array_equal(found, booster.predict(xgboost.DMatrix(plain)).astype(np.float64))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("zipmap", [True, False])
def test_onnx_loads_without_trust(tmp_path, zipmap):
    from skl2onnx import to_onnx

    data = numbers().to_numpy().astype(np.float32)
    model = LogisticRegression(max_iter=2000).fit(data, target(numbers()))
    graph = to_onnx(model, data[:1], options={"zipmap": zipmap})
    info, _ = saved(graph, tmp_path, data)
    assert (info.flavor, info.needs_trust) == ("onnx", False)
    batch = Predictor.load(tmp_path / "m", trust=False).predict(data)
    np.testing.assert_allclose(batch.scores, model.predict_proba(data)[:, 1], atol=1e-5)
    np.testing.assert_array_equal(batch.labels, model.predict(data))


def test_the_positive_label_turns_the_score_around(tmp_path):
    frame = numbers()
    label = np.where(target(frame) == 1, "stays", "leaves")
    model = lightgbm.LGBMClassifier(**LGBM).fit(frame, label)
    saved(model, tmp_path, frame, positive_label="leaves")
    predictor = Predictor.load(tmp_path / "m", trust=False)
    assert predictor.traits.positive_label == "leaves"
    batch = predictor.predict(frame)
    np.testing.assert_array_equal(batch.scores, model.predict_proba(frame)[:, 0])
    np.testing.assert_array_equal(batch.labels, model.predict(frame))
    with pytest.raises(Invalid, match="not one of this model's two classes"):
        save_model(model, tmp_path / "other", data=frame, positive_label="gone")


def test_a_callable_and_an_object_predict(tmp_path):
    frame = texts()
    save_model(lambda table: table["f0"] * 2, tmp_path / "a", data=frame)
    found = Predictor.load(tmp_path / "a", trust=True).predict(frame)
    np.testing.assert_array_equal(found.scores, frame["f0"] * 2)
    assert found.labels is None
    save_model(Rule("Rome"), tmp_path / "b", data=frame)
    batch = Predictor.load(tmp_path / "b", trust=True).predict_rows(records(frame)[:10])
    expected = np.where(frame["city"][:10] == "Rome", "call", "wait")
    assert batch.traits.classes == ("call", "wait")
    np.testing.assert_array_equal(batch.output, expected)
    np.testing.assert_array_equal(batch.scores, (expected == "wait").astype(float))


class Rule:
    def __init__(self, city):
        self.city = city

    def predict(self, table):
        return np.where(table["city"] == self.city, "call", "wait")


def test_a_model_without_data_takes_what_it_is_given(tmp_path):
    frame = texts()
    save_model(Rule("Rome"), tmp_path / "m")
    assert read_info(tmp_path / "m").signature is None
    predictor = Predictor.load(tmp_path / "m", trust=True)
    with pytest.raises(Invalid, match="save it with 'data'"):
        predictor.predict_rows([{"city": "Rome"}])
    save_model(lambda table: table["f0"] + 1, tmp_path / "n")
    predictor = Predictor.load(tmp_path / "n", trust=True)
    assert predictor.predict_rows([{"f0": 1.0}, {"f0": 2.0}]).scores.tolist() == [2.0, 3.0]
    np.testing.assert_array_equal(predictor.predict(frame).scores, frame["f0"] + 1)
    with pytest.raises(Invalid, match="no signature"):
        predictor.predict_rows([["Rome"]])


def test_a_lightgbm_without_data_still_knows_its_columns(tmp_path):
    frame = numbers(nulls=True)
    model = lightgbm.LGBMRegressor(**LGBM).fit(frame, frame["f0"])
    info = save_model(model, tmp_path / "m")
    assert info.signature.names == tuple(frame)
    rows = records(frame)[:4]
    np.testing.assert_array_equal(
        Predictor.load(tmp_path / "m", trust=False).predict_rows(rows).scores, model.predict(frame[:4])
    )


def test_the_label_column_in_the_data_is_left_out(tmp_path):
    frame = numbers()
    model = lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame))
    shuffled = frame.assign(left=target(frame))[["left", "count", *[f"f{i}" for i in (3, 2, 1, 0)]]]
    info = save_model(model, tmp_path / "m", data=shuffled)
    assert info.signature.names == tuple(frame)
    found = Predictor.load(tmp_path / "m", trust=False).predict(shuffled).scores
    np.testing.assert_array_equal(found, model.predict_proba(frame)[:, 1])


def test_data_that_lacks_a_trained_column_is_refused(tmp_path):
    frame = numbers()
    model = lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame))
    with pytest.raises(Invalid, match="lacks columns that the model was trained on: f3"):
        save_model(model, tmp_path / "m", data=frame.drop(columns="f3"))


def test_a_hook_runs_in_front_of_the_model(tmp_path):
    raw = pd.DataFrame({"amount": np.arange(1.0, 101.0), "city": ["Oslo", "Rome"] * 50})

    def hook(columns):
        return {"log": np.log(columns["amount"]), "rome": (columns["city"] == "Rome").astype(np.float64)}

    made = pd.DataFrame(hook({"amount": raw["amount"].to_numpy(), "city": raw["city"].to_numpy(dtype=object)}))
    model = lightgbm.LGBMRegressor(**LGBM).fit(made, raw["amount"])
    info = save_model(model, tmp_path / "m", data=raw, preprocess=hook)
    assert (info.signature.names, info.model_signature.names) == (("amount", "city"), ("log", "rome"))
    predictor = Predictor.load(tmp_path / "m", trust=True)
    expected = model.predict(made)
    np.testing.assert_array_equal(predictor.predict(raw).scores, expected)
    np.testing.assert_array_equal(predictor.predict_rows(raw.to_dict("records")[:3]).scores, expected[:3])
    np.testing.assert_array_equal(predictor.predict(made, apply_hooks=False).scores, expected)
    with pytest.raises(UnexpectedColumn):
        predictor.predict_rows([{"log": 1.0, "rome": 1.0, "amount": 3.0, "city": "Rome"}])


def test_a_failed_verification_takes_the_models_own_code(tmp_path):
    frame = numbers()
    model = lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame))
    _, record = saved(model, tmp_path, frame)
    trees = tmp_path / "m/model.lgb"
    other = lightgbm.LGBMClassifier(**LGBM, learning_rate=0.5).fit(frame, target(frame))
    trees.write_text(other.booster_.model_to_string())
    failed = verify_engine(tmp_path / "m", frame, trust=True)
    assert record.passed
    assert not failed.passed
    assert failed.max_abs_difference > 0
    record_verification(tmp_path / "m", failed)
    predictor = Predictor.load(tmp_path / "m", trust=True)
    assert predictor.engine == "own"
    np.testing.assert_array_equal(predictor.predict(frame).scores, model.predict_proba(frame)[:, 1])


def test_a_verification_is_recorded_and_goes_stale_with_its_versions(tmp_path):
    frame = numbers()
    _, record = saved(lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame)), tmp_path, frame)
    assert Predictor.load(tmp_path / "m", trust=False).needs_verification
    record_verification(tmp_path / "m", record)
    fresh = Predictor.load(tmp_path / "m", trust=False)
    assert fresh.verification == record
    assert not fresh.needs_verification
    assert record.rows == len(frame) + 300
    old = type(record).from_json({**record.to_json(), "versions": {"lightgbm": "1.0"}})
    assert Predictor.load(tmp_path / "m", trust=False, verification=old).needs_verification


def test_verification_takes_rows_too_and_names_them_by_content(tmp_path):
    frame = texts()
    model = make_pipeline(encoded(), lightgbm.LGBMClassifier(**LGBM)).fit(frame, target(frame))
    saved(model, tmp_path, frame)
    first = verify_engine(tmp_path / "m", records(frame), trust=True)
    second = verify_engine(tmp_path / "m", records(frame)[:50], trust=True)
    assert first.passed
    assert first.rows_digest != second.rows_digest


def test_bad_rows_are_refused_before_the_model_sees_them(tmp_path):
    frame = numbers()
    saved(lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame)), tmp_path, frame)
    predictor = Predictor.load(tmp_path / "m", trust=False)
    row = records(frame)[0]
    with pytest.raises(NullNotAllowed, match="Row 1: column 'f2'"):
        predictor.predict_rows([row, {**row, "f2": float("nan")}])
    with pytest.raises(NullNotAllowed, match="Row 0: column 'f2'"):
        predictor.predict_rows([{**row, "f2": float("nan")}])
    with pytest.raises(Invalid, match="no rows"):
        predictor.predict_rows([])
    assert predictor.predict_rows([{**row, "id": 1}], ignore={"id"}).scores.shape == (1,)


def test_a_score_that_is_not_finite_is_refused(tmp_path):
    frame = numbers()
    save_model(lambda table: np.where(table["f0"] > 0, 1.0, np.nan), tmp_path / "m", data=frame)
    predictor = Predictor.load(tmp_path / "m", trust=True)
    first = int(np.flatnonzero(frame["f0"] <= 0)[0])
    with pytest.raises(NoFiniteScore) as caught:
        predictor.predict(frame)
    assert caught.value.facts["row"] == first


def test_threads_share_a_predictor(tmp_path):
    frame = numbers()
    model = lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame))
    saved(model, tmp_path, frame)
    predictor = Predictor.load(tmp_path / "m", trust=False)
    rows = records(frame)[:100]
    expected = model.predict_proba(frame[:100])[:, 1]
    found = [None] * 4

    def work(slot):
        found[slot] = [predictor.predict_rows([row]).scores[0] for row in rows]

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for scores in found:
        np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("kind", ["trees", "booster", "linear", "pipeline"])
def test_a_native_engine_imports_no_library_even_when_trusted(tmp_path, kind):
    frame = texts() if kind == "pipeline" else numbers()
    model = {
        "trees": lambda: lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame)),
        "booster": lambda: lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(frame, frame["f0"]), 3),
        "linear": lambda: LogisticRegression(max_iter=2000).fit(frame, target(frame)),
        "pipeline": lambda: make_pipeline(encoded(), LogisticRegression(max_iter=1000)).fit(frame, target(frame)),
    }[kind]()
    saved(model, tmp_path, frame)
    script = """
import json, sys
from pathlib import Path
from modelyard.models import Predictor
predictor = Predictor.load(Path(sys.argv[1]), trust=True)
print(predictor.predict_rows([json.loads(sys.argv[2])]).scores[0].hex())
print(sorted({"lightgbm", "pandas", "sklearn", "scipy", "pyarrow"} & set(sys.modules)))
"""
    row = records(frame)[0]
    arguments = [sys.executable, "-c", script, str(tmp_path / "m"), json.dumps(row)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    expected = Predictor.load(tmp_path / "m", trust=False).predict_rows([row]).scores[0]
    assert done.stdout.split("\n")[:2] == [expected.hex(), "[]"]
