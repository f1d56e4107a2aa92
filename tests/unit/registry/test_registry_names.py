"""No text of a client becomes a path, and names that mean something else are refused."""

from datetime import UTC, datetime

import pytest

from modelyard.errors import Invalid
from modelyard.events import Actor, EventLog, EventTimeClock
from modelyard.registry import FileRef, Registry
from modelyard.storage.objects import ObjectStore
from modelyard.storage.series import SeriesStore
from modelyard.tracking import Tracking

ADA = Actor("ada")
AT = datetime(2013, 4, 1, 12, tzinfo=UTC)


@pytest.fixture
def objects(tmp_path):
    return ObjectStore.at(tmp_path / "objects")


@pytest.fixture
def registry(sqlite, objects):
    log, clock = EventLog(sqlite), EventTimeClock(AT)
    tracking = Tracking(sqlite, log, clock, objects=objects, series=SeriesStore(sqlite))
    return Registry(sqlite, log, clock, objects=objects, tracking=tracking)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\n")
    return folder


@pytest.mark.parametrize("name", ["", " ", "a\0b", "a/b", "a@b", "a:b", "a\nb", "\ud800", "x" * 251])
def test_model_names_that_mean_something_else_are_refused(registry, folder, name):
    with pytest.raises(Invalid):
        registry.create_model(name, actor=ADA)
    with pytest.raises(Invalid):
        registry.register_version(name, folder, actor=ADA)


@pytest.mark.parametrize("name", ["x%2f..", "<img onerror>", "{{7*7}}", "..", "模型"])
def test_odd_model_names_are_inert(registry, folder, name, tmp_path):
    version = registry.register_version(name, folder, actor=ADA)
    assert registry.resolve(f"{name}/latest") == registry.get_version(version)
    assert registry.materialize(version, tmp_path / "there").is_dir()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a\\b", "a/../b", "%2e%2e/x", "C:x"])
def test_files_that_lead_anywhere_else_are_refused(registry, objects, path):
    digest = objects.put(b"x")
    with pytest.raises(Invalid):
        registry.register_files("churn", [FileRef(path, digest, 1)], actor=ADA)
    assert registry.list_models() == []
