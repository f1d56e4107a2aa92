from hashlib import sha256

import pytest

from modelyard.errors import Forbidden, Invalid, Unauthenticated
from modelyard.serving.access import (
    Doorkeeper,
    TokenCheck,
    TokenRule,
    TokenTable,
    allow_all,
    read_tokens,
    refuse_all,
    write_tokens,
)
from modelyard.serving.faults import HostRefused, OriginRefused


def rule(token, **given):
    return TokenRule(sha256(token.encode()).hexdigest(), "ada", **given)


TABLE = TokenTable((rule("all"), rule("churn", endpoints=("churn",)), rule("old", expires_ms=1_000)))


def test_the_file_holds_digests_only(tmp_path):
    path = tmp_path / "tokens.json"
    write_tokens(path, TABLE)
    assert read_tokens(path) == TABLE
    assert b'"churn"' in path.read_bytes()
    assert sha256(b"churn").hexdigest().encode() in path.read_bytes()


def test_a_damaged_file_is_no_table(tmp_path):
    path = tmp_path / "tokens.json"
    path.write_bytes(b'{"tokens": [1]}')
    with pytest.raises(Invalid, match="token table"):
        read_tokens(path)


@pytest.mark.parametrize(
    ("header", "endpoint"),
    [(b"Bearer all", "any"), (b"bearer all", "any"), (b"Bearer churn", "churn"), (b"Bearer old", "churn")],
)
def test_a_good_token_passes(header, endpoint):
    assert TokenCheck(TABLE, now_ms=lambda: 999)(header, endpoint) is None


@pytest.mark.parametrize(
    ("header", "endpoint", "error"),
    [
        (None, "churn", Unauthenticated),
        (b"", "churn", Unauthenticated),
        (b"Basic all", "churn", Unauthenticated),
        (b"Bearer ", "churn", Unauthenticated),
        (b"Bearer nobody", "churn", Unauthenticated),
        (b"Bearer old", "churn", Unauthenticated),
        (b"Bearer churn", "other", Forbidden),
        (b"Bearer \xff\xfe", "churn", Unauthenticated),
    ],
)
def test_a_bad_token_does_not(header, endpoint, error):
    with pytest.raises(error):
        TokenCheck(TABLE, now_ms=lambda: 1_000)(header, endpoint)


def test_without_tokens_loopback_is_open_and_the_rest_closed():
    assert allow_all(None, "churn") is None
    with pytest.raises(Unauthenticated, match="token create"):
        refuse_all(b"Bearer all", "churn")


LOOPBACK = Doorkeeper(listening="127.0.0.1", origins=["https://App.example"])
NAMED = Doorkeeper(listening="0.0.0.0", hosts=["ml.example"])
OPEN = Doorkeeper(listening="0.0.0.0")


@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:80", b"127.0.0.1:9", b"[::1]:80", b"[::1]"])
def test_loopback_names_are_answered(host):
    for _ in range(2):
        assert LOOPBACK.check_host(host) is None


@pytest.mark.parametrize(
    "host",
    [
        None,
        b"",
        b"evil.example",
        b"localhost.evil.example",
        b"127.0.0.1.evil.example:80",
        b"evil.example:127.0.0.1",
        b"[::1].evil",
        b"[::2]",
        b"\xff",
    ],
)
def test_other_names_are_refused_on_loopback(host):
    with pytest.raises(HostRefused):
        LOOPBACK.check_host(host)


def test_an_open_worker_answers_to_its_names_or_to_all():
    assert NAMED.check_host(b"ml.example:443") is None
    with pytest.raises(HostRefused):
        NAMED.check_host(b"localhost")
    assert OPEN.check_host(b"anything") is None
    assert OPEN.check_host(None) is None


@pytest.mark.parametrize("origin", [b"http://localhost:80", b"https://LOCALHOST:80", b"https://app.example"])
def test_own_and_allowed_origins_pass(origin):
    assert LOOPBACK.check_origin(origin, b"localhost:80") is None


@pytest.mark.parametrize("origin", [b"null", b"https://evil.example", b"http://localhost:81", b"", b"localhost:80"])
def test_other_origins_do_not(origin):
    with pytest.raises(OriginRefused):
        LOOPBACK.check_origin(origin, b"localhost:80")
