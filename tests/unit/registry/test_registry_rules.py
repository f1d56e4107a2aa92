"""Rules, contents and names of the registry, without a database."""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard import models
from modelyard.errors import Conflict, Invalid, TooLarge
from modelyard.registry import FileRef, Version, content_digest
from modelyard.registry.contents import checked, pin, write_out
from modelyard.registry.model import MAX_FILES, alias_name, stage_name
from modelyard.registry.rules import check_rule, checked_rule
from modelyard.storage.objects import ObjectStore

AT = datetime(2013, 4, 1, tzinfo=UTC)


def _version(number=1, tags=None, **metrics):
    return Version(
        project="default",
        model="churn",
        number=number,
        content_digest="0" * 64,
        stage="development",
        signature=None,
        lineage={},
        run_id=None,
        trained_by=None,
        created_by="ada",
        created_at=AT,
        updated_at=AT,
        description="",
        profile_digest=None,
        engine=None,
        metrics=metrics,
        tags=tags or {},
    )


def test_missing_metric_is_never_a_pass():
    check = check_rule("roc_auc >= 0.85 and latency <= 20", _version(roc_auc=0.9), None)
    assert not check.passed
    assert check.evidence["outcome"] == "unknown"
    assert not check_rule("roc_auc >= 0.85", _version(roc_auc=float("nan")), None).passed


def test_champion_is_another_version_or_not_applicable():
    rule = "roc_auc > champion.roc_auc"
    assert check_rule(rule, _version(roc_auc=0.5), None).passed
    assert check_rule(rule, _version(1, roc_auc=0.5), _version(1, roc_auc=0.5)).passed
    assert not check_rule(rule, _version(2, roc_auc=0.5), _version(1, roc_auc=0.6)).passed
    assert check_rule(rule, _version(2, roc_auc=0.7), _version(1, roc_auc=0.6)).passed
    assert not check_rule(rule, _version(2, roc_auc=0.7), _version(1)).passed


def test_tags_are_facts():
    assert check_rule("tags.tier = 'low'", _version(tags={"tier": "low"}), None).passed
    assert not check_rule("tags.tier = 'low'", _version(), None).passed


def test_rules_call_no_tests():
    with pytest.raises(Invalid, match=r"better_than"):
        checked_rule("better_than(champion, roc_auc)")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.lists(st.sampled_from(["a", "b", "ü", "x.y", "Z"]), min_size=1, max_size=3).map("/".join),
        st.binary(max_size=20),
        min_size=1,
        max_size=6,
    )
)
def test_pinned_content_is_the_folder_and_is_written_out_again(tmp_path_factory, contents):
    base = tmp_path_factory.mktemp("content")
    folder, objects = base / "model", ObjectStore.at(base / "objects")
    for name, content in contents.items():
        if any(other.startswith(f"{name}/") for other in contents):
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    files = pin(folder, objects)
    digest = models.folder_digest(folder)
    assert content_digest(files) == digest
    assert content_digest(reversed(files)) == digest
    written = write_out(files, base / "out", objects, digest=digest)
    assert models.folder_digest(written) == digest
    assert {file.path for file in models.files(written)} == {file.path for file in models.files(folder)}


def test_content_that_is_not_what_was_registered_is_not_written(tmp_path):
    objects = ObjectStore.at(tmp_path / "objects")
    files = [FileRef("a", objects.put(b"x"), 1)]
    with pytest.raises(models.BadModelFolder):
        write_out(files, tmp_path / "out", objects, digest="0" * 64)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other").write_text("x")
    with pytest.raises(Conflict):
        write_out(files, tmp_path / "out", objects, digest=content_digest(files))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["objects", "out"]


def test_files_are_counted():
    with pytest.raises(TooLarge):
        checked(FileRef(str(number), "0" * 64, 1) for number in range(MAX_FILES + 1))


def test_words_with_a_meaning():
    assert stage_name("staging") == "staging"
    assert alias_name("champion") == "champion"
    for word in ("Production", "none", ""):
        with pytest.raises(Invalid):
            stage_name(word)
