"""Users, tokens and passwords on both databases."""

from datetime import UTC, datetime, timedelta

import pytest

from modelyard.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from modelyard.events import SYSTEM, EventLog, EventTimeClock
from modelyard.server.identity import EVERYWHERE, Identity, require
from modelyard.server.identity.store import tokens

START = datetime(2026, 1, 1, tzinfo=UTC)
PASSWORD = "correct horse battery"


@pytest.fixture
def clock():
    return EventTimeClock(START)


@pytest.fixture
def identity(database, clock):
    return Identity(database, EventLog(database), clock)


def _make(identity, name="ada", roles=frozenset({"contributor"}), **more):
    return identity.create_user(name, actor=SYSTEM, roles={EVERYWHERE: roles}, **more)


def test_token_speaks_for_its_user_until_revoked(identity, database):
    _make(identity, labels=frozenset({"risk"}))
    token, secret = identity.create_token("ada", "laptop", actor=SYSTEM)
    actor, granted = identity.authenticate_token(secret, project="default")
    assert (actor.name, actor.labels) == ("ada", {"risk"})
    require(granted, "run:write", actor=actor)
    with pytest.raises(Forbidden, match="deployer"):
        require(granted, "deployment:write", actor=actor)
    with database.reading() as connection:
        dump = str(connection.execute(tokens.select()).all())
    assert secret not in dump
    identity.revoke_token(token.token_id, actor=SYSTEM)
    identity.revoke_token(token.token_id, actor=SYSTEM)
    with pytest.raises(Unauthenticated):
        identity.authenticate_token(secret, project="default")


def test_token_never_grants_more_than_its_user_has(identity):
    _make(identity, roles=frozenset({"viewer"}))
    asked = frozenset({"read", "deployment:write"})
    _, secret = identity.create_token("ada", "ci", actor=SYSTEM, permissions=asked)
    _, granted = identity.authenticate_token(secret, project="default")
    assert granted == {"read"}


def test_token_expires(identity, clock):
    _make(identity)
    _, secret = identity.create_token("ada", "ci", actor=SYSTEM, expires_at=START + timedelta(hours=1))
    identity.authenticate_token(secret, project="default")
    clock.advance(START + timedelta(hours=1))
    with pytest.raises(Unauthenticated, match="expired"):
        identity.authenticate_token(secret, project="default")


def test_roles_hold_in_their_project_only(identity):
    identity.create_user("bob", actor=SYSTEM, roles={"fraud": frozenset({"deployer"})})
    _, secret = identity.create_token("bob", "x", actor=SYSTEM)
    assert "deployment:write" in identity.authenticate_token(secret, project="fraud")[1]
    assert identity.authenticate_token(secret, project="churn")[1] == frozenset()
    identity.set_roles("bob", "churn", frozenset({"viewer"}), actor=SYSTEM)
    assert identity.authenticate_token(secret, project="churn")[1] == {"read"}


def test_password_change_ends_the_old_one_at_once(identity):
    _make(identity, password=PASSWORD)
    assert identity.authenticate_password("ada", PASSWORD, project="p")[0].name == "ada"
    identity.set_password("ada", PASSWORD + "!", actor=SYSTEM)
    for name, password in (("ada", PASSWORD), ("nobody", PASSWORD), ("ada", "")):
        with pytest.raises(Unauthenticated):
            identity.authenticate_password(name, password, project="p")


def test_bad_input_is_named(identity):
    _make(identity)
    with pytest.raises(Conflict):
        _make(identity)
    with pytest.raises(Invalid, match="Did you mean 'viewer'"):
        identity.create_user("eve", actor=SYSTEM, roles={"p": frozenset({"viewr"})})
    with pytest.raises(Invalid, match="12 characters"):
        identity.create_user("eve", actor=SYSTEM, password="short")
    for name in ("", "a/b", "a\x00b", "*"):
        with pytest.raises(Invalid):
            identity.create_user(name, actor=SYSTEM)
    with pytest.raises(NotFound):
        identity.create_token("nobody", "x", actor=SYSTEM)


def test_every_change_is_in_the_log(identity, database):
    _make(identity)
    token, _ = identity.create_token("ada", "laptop", actor=SYSTEM)
    identity.revoke_token(token.token_id, actor=SYSTEM)
    identity.create_project("fraud", actor=SYSTEM)
    kinds = [row.event.kind for row in EventLog(database).read()]
    assert kinds == ["user.created", "token.created", "token.revoked", "project.created"]
