"""Who may ask for predictions: tokens, host names and origins.

The control plane writes ``serving/tokens.json`` with the SHA-256 digests of tokens, never the tokens. Without
that file a worker on loopback answers everybody on the machine, and a worker on any other address nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from modelyard.errors import Forbidden, Invalid, Unauthenticated
from modelyard.serving.faults import HostRefused, OriginRefused
from modelyard.serving.publisher import write_atomically

Headers = Iterable[tuple[bytes, bytes]]
Authorize = Callable[[bytes | None, str], None]
"""Called with the ``Authorization`` header and the endpoint's name; raises ``Forbidden`` to refuse."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ALL = "*"


@dataclass(frozen=True, slots=True)
class TokenRule:
    """What one token may do.

    Attributes:
        sha256: Hex digest of the token.
        user: Whose it is, for logs.
        endpoints: Names that it may predict on; ``*`` is all.
        expires_ms: Wall clock in milliseconds since 1970 from which it is void, or None.
    """

    sha256: str
    user: str
    endpoints: tuple[str, ...] = (_ALL,)
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True)
class TokenTable:
    """All tokens that may predict.

    Attributes:
        tokens: One rule a token; a token that is not here is refused.
    """

    tokens: tuple[TokenRule, ...]


def write_tokens(path: Path, table: TokenTable) -> None:
    """Replace the token table; workers take it within 50 ms."""
    write_atomically(path, msgspec.json.encode(table), durable=True)


def read_tokens(path: Path) -> TokenTable:
    """Read the token table.

    Raises:
        FileNotFoundError: If there is none.
        Invalid: If it cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=TokenTable)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The token table cannot be read: {error}.") from error


def allow_all(authorization: bytes | None, endpoint: str) -> None:
    """Allow everybody: loopback without a secret."""


def refuse_all(authorization: bytes | None, endpoint: str) -> None:
    """Refuse everybody: an open address without a token table.

    Raises:
        Unauthenticated: Always.
    """
    raise Unauthenticated(
        "This worker listens on an open address, but no token has been issued. Create one with "
        "'modelyard token create'."
    )


class TokenCheck:
    """Checks ``Authorization: Bearer <token>`` against a table.

    Args:
        table: The tokens that may predict.
        now_ms: Wall clock in milliseconds since 1970.
    """

    def __init__(self, table: TokenTable, *, now_ms: Callable[[], int] | None = None) -> None:
        self._rules = {rule.sha256: rule for rule in table.tokens}
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)

    def __call__(self, authorization: bytes | None, endpoint: str) -> None:
        """Return if the token may predict on the endpoint.

        Raises:
            Unauthenticated: If there is no token, or it is unknown or expired.
            Forbidden: If it may not use this endpoint.
        """
        if authorization is None or authorization[:7].lower() != b"bearer ":
            raise Unauthenticated("A token is needed: send the header 'Authorization: Bearer <token>'.")
        # Looking a digest up leaks nothing about the token: its bits do not follow from the digest's.
        rule = self._rules.get(sha256(authorization[7:].strip()).hexdigest())
        if rule is None or (rule.expires_ms is not None and rule.expires_ms <= self._now_ms()):
            raise Unauthenticated("The token is unknown, revoked or expired.")
        if _ALL not in rule.endpoints and endpoint not in rule.endpoints:
            raise Forbidden(f"The token of {rule.user!r} may not predict on {endpoint!r}.", endpoint=endpoint)


class Doorkeeper:
    """Checks the host and origin of each request, against DNS rebinding and foreign web pages.

    Args:
        listening: Address that the worker listens on.
        hosts: Names that clients use, without port; on loopback the loopback names are added. Empty on an
            open address means any name: there the token protects.
        origins: Web origins that may send requests besides the worker's own, such as ``https://app.example``.
    """

    def __init__(self, *, listening: str, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self.on_loopback = listening in LOOPBACK
        names = {name.lower().strip("[]") for name in hosts}
        if self.on_loopback:
            names.update(LOOPBACK)
        self._hosts = frozenset(names)
        self._origins = frozenset(origin.lower() for origin in origins)
        self._good: set[bytes] = set()

    def check_host(self, host: bytes | None) -> None:
        """Return if the request was sent to a name of this worker.

        Raises:
            HostRefused: Otherwise.
        """
        if host in self._good:
            return
        text = "" if host is None else host.decode("latin-1")
        if self._hosts and _without_port(text) not in self._hosts:
            raise HostRefused(text[:200])
        if host is not None and len(self._good) < 64:  # bounds memory where any name is allowed
            self._good.add(host)

    def check_origin(self, origin: bytes, host: bytes | None) -> None:
        """Return if a page of this origin may send requests.

        Raises:
            OriginRefused: If it is another site than the worker's own and is not allowed.
        """
        text = origin.decode("latin-1").lower()
        own = "" if host is None else host.decode("latin-1").lower()
        if text in self._origins or (own and text in {f"http://{own}", f"https://{own}"}):
            return
        raise OriginRefused(text[:200])


def _without_port(host: str) -> str:
    text = host.lower()
    if text.startswith("["):
        address, closed, port = text[1:].partition("]")
        return address if closed and (not port or port.startswith(":")) else text
    return text.partition(":")[0].rstrip(".")
