"""Deciding a condition on facts: true, false, unknown or not applicable, with the evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from modelyard.criteria.comparing import Incomparable, compare, limit_for, value_for
from modelyard.criteria.facts import (
    Answer,
    Argument,
    Facts,
    Missing,
    NotApplicable,
    Observation,
    RelatedFacts,
    Scalar,
    is_nan,
)
from modelyard.criteria.model import (
    LITERALS,
    All,
    AnyOf,
    Call,
    Clause,
    Comparison,
    Condition,
    Count,
    Fact,
    Held,
    Instant,
    Literal,
    Match,
    Membership,
    Name,
    NoneOf,
    Not,
    Number,
    Operator,
    Presence,
    Some,
    Subject,
    Term,
    Within,
)
from modelyard.criteria.patterns import matches
from modelyard.criteria.reporting import compared, decided, shown, undecided, unknown, written
from modelyard.criteria.text import to_text
from modelyard.criteria.units import implied_unit
from modelyard.criteria.verdict import ClauseVerdict, Outcome, Verdict, conjunction, disjunction


def decide(node: Condition, facts: Facts) -> Verdict:
    """Decide a condition.

    >>> from modelyard.criteria.facts import MappingFacts
    >>> from modelyard.criteria.parser import parse
    >>> verdict = decide(parse("roc_auc >= 0.85 and not drift"), MappingFacts({"roc_auc": 0.87}))
    >>> verdict.outcome.value, [clause.outcome.value for clause in verdict.clauses]
    ('unknown', ['true', 'unknown'])

    Every clause is looked up, also those that cannot change the outcome any more: the evidence is wanted.
    ``lower(x)`` and ``upper(x)`` are the bounds of the confidence interval of ``x``; everything else compares
    the point estimate. A missing value, NaN, or one that cannot be compared with its limit makes its clause
    unknown. A clause that is not applicable is left out; if all are, so is the condition.

    Args:
        node: The condition.
        facts: Where its names, functions and past are looked up.
    """
    clauses: list[ClauseVerdict] = []
    return Verdict(_outcome(node, facts, negated=False, clauses=clauses), tuple(clauses))


def _outcome(node: Condition, facts: Facts, *, negated: bool, clauses: list[ClauseVerdict]) -> Outcome:
    """Return the outcome of a condition or of its negation, and append the verdict of its clauses.

    A negation is pushed down to the clauses (De Morgan), so that each is reported as it counts.
    """
    match node:
        case Not(part):
            return _outcome(part, facts, negated=not negated, clauses=clauses)
        case All(parts) | AnyOf(parts):
            outcomes = [_outcome(part, facts, negated=negated, clauses=clauses) for part in parts]
            return conjunction(outcomes) if isinstance(node, All) is not negated else disjunction(outcomes)
        case _:
            clause = _clause(node, facts)
            if negated:
                clause = replace(clause, text=to_text(Not(node)), outcome=clause.outcome.negated())
            clauses.append(clause)
            return clause.outcome


def _clause(node: Clause, facts: Facts) -> ClauseVerdict:
    match node:
        case Comparison():
            return _comparison(node, facts)
        case Held(condition, duration):
            answer = facts.held(condition, node.seconds)
            return _truth(node, answer, f"{to_text(condition)} for the last {to_text(duration)}")
        case Fact(subject):
            return _truth(node, _look_up(subject, facts), to_text(subject))
        case Some() | NoneOf():
            return _related(node, facts)
        case Presence():
            return _presence(node, facts)
        case _:
            return _test(node, facts)


def _truth(node: Fact | Held, answer: Answer, what: str) -> ClauseVerdict:
    if not isinstance(answer, Observation) or is_nan(answer.value):
        return undecided(node, answer)
    if not isinstance(answer.value, bool):
        return unknown(node, answer, f"{what} is {shown(answer)}, which is neither true nor false.")
    return decided(node, answer, answer.value, f"{what} is {shown(answer)}.")


def _comparison(node: Comparison, facts: Facts) -> ClauseVerdict:
    left, operator, right = node.left, node.operator, node.right
    if isinstance(left, LITERALS):
        left, operator, right = right, operator.mirrored, left
    if isinstance(left, LITERALS):
        raise TypeError("a comparison without a subject cannot be built")
    answer = _look_up(left, facts)
    limit = _limit(answer, right, left, facts)
    # What does not apply on either side goes before what is missing on the other.
    if isinstance(limit, NotApplicable):
        return undecided(node, limit)
    if not isinstance(answer, Observation) or is_nan(answer.value):
        return undecided(node, answer, None if isinstance(limit, Incomparable | Missing) else limit)
    if isinstance(limit, Incomparable | Missing):
        return unknown(node, answer, limit.reason)
    result = compare(answer.value, operator, limit)
    if isinstance(result, Incomparable):
        return unknown(node, answer, result.reason, limit)
    return compared(node, answer, result, f"{operator.value} {written(limit, answer.unit)}", limit)


def _limit(
    answer: Answer, term: Term, subject: Subject, facts: Facts
) -> Scalar | Incomparable | Missing | NotApplicable:
    """Find what an answer is compared with, in its unit if there is an answer."""
    if isinstance(term, LITERALS):
        if isinstance(answer, Observation):
            return limit_for(answer, term, name_unit=_name_unit(subject))
        return _plain(term)
    other = _look_up(term, facts)
    if not isinstance(other, Observation):
        return other
    if is_nan(other.value):
        return Missing(f"{to_text(term)} is not a number (NaN).")
    return value_for(answer, other) if isinstance(answer, Observation) else other.value


def _test(node: Membership | Match | Within, facts: Facts) -> ClauseVerdict:
    answer = _look_up(node.subject, facts)
    if not isinstance(answer, Observation) or is_nan(answer.value):
        return undecided(node, answer)
    if isinstance(node, Membership):
        return _membership(node, answer)
    if isinstance(node, Match):
        if not isinstance(answer.value, str):
            return unknown(node, answer, "The observed value is not text.", node.pattern)
        found = matches(node.pattern, answer.value, any_case=node.any_case)
        words = f"{'ilike' if node.any_case else 'like'} {node.pattern!r}"
        return compared(node, answer, found is not node.negated, ("not " * node.negated) + words, node.pattern)
    ends = tuple("" if moment is None else moment.at.isoformat() for moment in (node.start, node.end))
    inside = _inside(node, answer.value)
    if isinstance(inside, Incomparable):
        return unknown(node, answer, inside.reason, ends)
    return compared(node, answer, inside, f"within [{', '.join(ends)})", ends)


def _membership(node: Membership, answer: Observation) -> ClauseVerdict:
    limits = [limit_for(answer, value, name_unit=_name_unit(node.subject)) for value in node.values]
    results = [
        limit if isinstance(limit, Incomparable) else compare(answer.value, Operator.EQ, limit) for limit in limits
    ]
    known = tuple(limit for limit in limits if not isinstance(limit, Incomparable))
    wrong = next((result for result in results if isinstance(result, Incomparable)), None)
    if wrong is not None and True not in results:
        return unknown(node, answer, wrong.reason, known)
    listed = ", ".join(written(limit, answer.unit) for limit in known)
    return compared(node, answer, (True in results) is not node.negated, f"{'not ' * node.negated}in ({listed})", known)


def _inside(node: Within, value: Scalar) -> bool | Incomparable:
    ends: Iterable[tuple[Operator, Instant | None]] = ((Operator.GE, node.start), (Operator.LT, node.end))
    for operator, moment in ends:
        if moment is not None:
            result = compare(value, operator, moment.at)
            if result is not True:
                return result
    return True


def _presence(node: Presence, facts: Facts) -> ClauseVerdict:
    answer = _look_up(node.subject, facts)
    subject = to_text(node.subject)
    if isinstance(answer, NotApplicable):
        return undecided(node, answer)
    if isinstance(answer, Missing):
        return decided(node, None, not node.present, answer.reason)
    if is_nan(answer.value):
        return decided(node, answer, not node.present, f"{subject} is not a number (NaN).")
    return decided(node, answer, node.present, f"{subject} is {shown(answer)}.")


def _related(node: Some | NoneOf, facts: Facts) -> ClauseVerdict:
    outcomes = _members(node.relation, node.where, facts)
    if isinstance(outcomes, Missing | NotApplicable):
        return undecided(node, outcomes)
    # A relation without members has no member that meets the condition; members to which it does not apply
    # are left out, and if that leaves none of several, the question does not arise.
    outcome = disjunction(outcomes) if outcomes else Outcome.FALSE
    true, unsure = outcomes.count(Outcome.TRUE), outcomes.count(Outcome.UNKNOWN)
    doubt = f"; {unsure} could not be decided" if unsure else ""
    reason = f"{true} of {len(outcomes)} in {node.relation.path} meet the condition{doubt}."
    outcome = outcome.negated() if isinstance(node, NoneOf) else outcome
    return ClauseVerdict(to_text(node), outcome, reason, observed=true)


def _members(relation: Name, where: Condition | None, facts: Facts) -> list[Outcome] | Missing | NotApplicable:
    if not isinstance(facts, RelatedFacts):
        return Missing(f"Nothing is known about the relation {relation.path!r}.")
    related = facts.related(relation.path)
    if isinstance(related, Missing | NotApplicable):
        return related
    return [Outcome.TRUE if where is None else decide(where, each).outcome for each in related]


def _look_up(subject: Subject, facts: Facts) -> Answer:
    match subject:
        case Name(path):
            answer = facts.value(path)
            if isinstance(answer, Observation) and answer.unit is None and not isinstance(answer.value, bool | str):
                return replace(answer, unit=implied_unit(path))
            return answer
        case Call("lower" | "upper", (Name() | Call() as inner,), ()):
            return _bound(subject, _look_up(inner, facts))
        case Call("lower" | "upper"):
            return Missing(f"{subject.name}(…) takes one name: the value whose interval is meant.")
        case Call(name, args, options):
            return facts.call(name, tuple(map(_argument, args)), {key: _argument(each) for key, each in options})
        case Count(relation, where):
            return _counted(relation, _members(relation, where, facts))


def _bound(call: Call, answer: Answer) -> Answer:
    if not isinstance(answer, Observation):
        return answer
    if answer.interval is None:
        return Missing(f"{to_text(call.args[0])} is {shown(answer)} without an interval, so it has no bound.")
    return replace(answer, value=answer.interval[0 if call.name == "lower" else 1])


def _counted(relation: Name, outcomes: list[Outcome] | Missing | NotApplicable) -> Answer:
    if isinstance(outcomes, Missing | NotApplicable):
        return outcomes
    unsure = outcomes.count(Outcome.UNKNOWN)
    if unsure:
        return Missing(f"{unsure} of {len(outcomes)} in {relation.path} could not be decided.")
    return Observation(outcomes.count(Outcome.TRUE))


def _argument(term: Term) -> Argument:
    return _plain(term) if isinstance(term, LITERALS) else term


def _plain(literal: Literal) -> Scalar:
    match literal:
        case Number():
            return literal.magnitude
        case Instant(at):
            return at
        case _:
            return literal.value


def _name_unit(subject: Subject) -> str | None:
    """Return the unit that the name ends with, seen through ``lower`` and ``upper``."""
    while isinstance(subject, Call) and subject.name in {"lower", "upper"}:
        inner = subject.args[0] if subject.args else None
        if not isinstance(inner, Name | Call):
            return None
        subject = inner
    return implied_unit(subject.path) if isinstance(subject, Name) else None
