import pytest

from modelyard.criteria import ParseError, check_names, clauses, functions, names, parse, to_text

TEXT = (
    "roc_auc >= champion.roc_auc and not (better_than(champion, f1, by=region) or drift) "
    "and some(versions, stage = 'x' and count(deployments, live) > 1) and lower(auc) > 1 for 2h"
)


def test_names_reach_into_arguments_and_relations():
    assert names(parse(TEXT)) == {
        "roc_auc",
        "champion.roc_auc",
        "champion",
        "f1",
        "region",
        "drift",
        "versions",
        "versions.stage",
        "versions.deployments",
        "versions.deployments.live",
        "auc",
    }


def test_functions():
    assert functions(parse(TEXT)) == {"better_than", "lower"}


def test_clauses_are_what_and_or_and_not_join():
    assert [to_text(clause) for clause in clauses(parse("a and not (b > 1 or some(v, c and d)) and e for 1h"))] == [
        "a",
        "b > 1",
        "some(v, c and d)",
        "e for 1h",
    ]


def test_known_names_pass():
    node = parse(TEXT)
    check_names(node, names(node), {"better_than"})


@pytest.mark.parametrize(
    ("text", "near", "column"),
    [
        ("drift and roc_uac >= 0.85", "roc_auc", 11),
        ("better_then(champion, roc_auc)", "better_than", 1),
        ("better_than(champoin, roc_auc)", "champion", 13),
        ("some(versions, stag = 'x')", "versions.stage", 16),
        ("not some(version, stage = 'x')", "versions", 10),
        ("lowe(roc_auc) > 1", "lower", 1),
    ],
)
def test_a_misspelt_name_is_refused_with_the_right_one(text, near, column):
    known = {"roc_auc", "drift", "champion", "versions", "versions.stage"}
    with pytest.raises(ParseError, match="There is no") as caught:
        check_names(parse(text), known, {"better_than"})
    assert (caught.value.near, caught.value.column) == (near, column)
