import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.criteria.patterns import Wild, matches, pieces, to_glob, to_like


@pytest.mark.parametrize(
    ("pattern", "glob", "like"),
    [
        ("a%_b", "a*?b", "a%_b"),
        (r"50\%", "50%", r"50\%"),
        (r"a\_b", "a_b", r"a\_b"),
        ("a*b?[c]", "a[*]b[?][[]c]", "a*b?[c]"),
        ("end\\", "end\\", "end\\\\"),
        ("C:\\dir", "C:\\dir", "C:\\\\dir"),
    ],
)
def test_translation(pattern, glob, like):
    assert (to_glob(pattern), to_like(pattern)) == (glob, like)


@settings(max_examples=300, deadline=None)
@given(st.text(r"ab%_\A", max_size=6), st.text(r"ab%_\A", max_size=6))
def test_matches_as_a_regular_expression_does(pattern, text):
    written = {Wild.ANY_TEXT: ".*", Wild.ONE_CHARACTER: "."}
    expression = "".join(written.get(piece) or re.escape(piece) for piece in pieces(pattern))
    assert matches(pattern, text) == bool(re.fullmatch(expression, text, re.DOTALL))
    assert matches(pattern, text, any_case=True) == bool(re.fullmatch(expression, text, re.DOTALL | re.IGNORECASE))


def test_many_wildcards_stay_fast():
    assert not matches("%a" * 500 + "b", "a" * 2_000)
