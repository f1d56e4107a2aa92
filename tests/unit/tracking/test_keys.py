"""Relative keys and names: what is refused, and that the rest stays as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import Invalid, TooLarge
from modelyard.tracking import check_text, clean_name, relative_key


@pytest.mark.parametrize(
    "text",
    [
        "../../../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%252e%252e%252fetc",
        "%25252525252e%2525252e/x",
        "..\\x",
        "\\..\\filename",
        "/etc",
        "file:///etc/",
        "//proc/self/root/etc",
        "http:///#/../../etc/",
        "http://h/a?b=/../../etc",
        ";/../../x",
        "s3://b/../../etc",
        "mlflow-artifacts:/../../etc",
        "a\0/etc/passwd",
        "%00/etc/passwd",
        "a/%00",
        "C:/x",
        "c:x",
        "a:b",
        "a//b",
        "a/",
        "./a",
        "a/..",
        "a/.. /b",
        "",
        " ",
        "a\nb",
        "\ud800",
        "\u202etxt.exe",
    ],
)
def test_paths_that_could_lead_elsewhere_are_refused(text):
    with pytest.raises(Invalid):
        relative_key(text)


@pytest.mark.parametrize(
    "text", ["a", "plots/roc.png", "model/MLmodel", "a b/ü.txt", "100%.txt", "..a/b..", "x%20y", "ab:c"]
)
def test_ordinary_keys_are_kept(text):
    assert relative_key(text) == text


def test_long_keys_are_refused():
    with pytest.raises(TooLarge):
        relative_key("x" * 1001)


@given(st.text(max_size=40))
def test_accepted_keys_stay_below_the_folder_on_every_system(text):
    from pathlib import PurePosixPath, PureWindowsPath

    try:
        key = relative_key(text)
    except Invalid:
        return
    for kind, root in ((PurePosixPath, "/store"), (PureWindowsPath, "D:\\store")):
        joined = kind(root) / key
        assert joined.is_relative_to(kind(root))
        assert ".." not in joined.parts


def test_names_are_checked_and_inert():
    assert clean_name("tag", "<img onerror> {{7*7}}", limit=100) == "<img onerror> {{7*7}}"
    for bad in ("", "\t", "a\0", "a\x1b[0m", "\udfff"):
        with pytest.raises(Invalid):
            clean_name("tag", bad, limit=100)
    assert check_text("note", "two\nlines", limit=9) == "two\nlines"
    with pytest.raises(TooLarge, match="at most 3"):
        check_text("note", "four", limit=3)
    with pytest.raises(Invalid):
        check_text("note", "a\0", limit=9)
