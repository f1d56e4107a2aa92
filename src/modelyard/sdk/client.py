"""A client of the native HTTP API.

There is one way to Modelyard for the SDK and the command line: the API. With a server it goes over the
network; without one the same application runs inside this process (``LocalTransport``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from modelyard.errors import ModelyardError, Unavailable

_TIMEOUT_S = 60.0


class Client:
    """Sends requests to the native API and turns problem documents back into errors.

    Args:
        base_url: Address of the server, for example ``http://127.0.0.1:5000``.
        token: API token, or empty on loopback without a secret.
        project: Project of every request.
        transport: Replaces the network, for local mode and tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str = "",
        project: str = "default",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"X-Modelyard-Project": project}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(
            base_url=f"{self.base_url}/api/v1", headers=headers, transport=transport, timeout=_TIMEOUT_S
        )

    def get(self, path: str, **query: Any) -> Any:
        """Send GET; parameters that are None are left out."""
        return self.request("GET", path, query=query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """Send POST with a JSON body."""
        return self.request("POST", path, body=body, query=query)

    def put(self, path: str, body: Any = None, **query: Any) -> Any:
        """Send PUT with a JSON body."""
        return self.request("PUT", path, body=body, query=query)

    def delete(self, path: str, **query: Any) -> Any:
        """Send DELETE."""
        return self.request("DELETE", path, query=query)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: bytes | Iterator[bytes] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send one request.

        Args:
            method: HTTP method.
            path: Path below ``/api/v1``, with its slash.
            body: JSON-compatible body.
            content: Raw body instead of ``body``.
            query: Query parameters; those that are None are left out.
            headers: Further headers.

        Returns:
            The decoded JSON of the answer; raw bytes if the answer is not JSON; None if it is empty.

        Raises:
            ModelyardError: The error that the server named, of the same class.
            Unavailable: If the server cannot be reached.
        """
        parameters = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            response = self._http.request(method, path, json=body, content=content, params=parameters, headers=headers)
        except httpx.TransportError as error:
            raise Unavailable(f"Modelyard at {self.base_url} does not answer: {error}.") from error
        if response.is_error:
            raise error_of(response)
        if not response.content:
            return None
        kind = response.headers.get("content-type", "")
        return response.json() if kind.startswith("application/json") else response.content

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def error_of(response: httpx.Response) -> ModelyardError:
    """Build the error that a problem document describes, of the class that has its code."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or "code" not in body:
        return Unavailable(f"The server answered {response.status_code} without an explanation.")
    known = {kind.code: kind for kind in _classes(ModelyardError)}
    kind = known.get(str(body["code"]), ModelyardError)
    # Constructors of subclasses take facts; here the message is finished already.
    error = kind.__new__(kind)
    ModelyardError.__init__(error, str(body.get("detail", "")), **{k: v for k, v in body.items() if k != "detail"})
    return error


def _classes(kind: type[ModelyardError]) -> Iterator[type[ModelyardError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _classes(child)
