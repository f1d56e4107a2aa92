"""``modelyard models``, ``deploy``, ``rollback`` and ``predict``: versions and the endpoints they answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from modelyard.cli.session import Session, command
from modelyard.errors import Invalid, Unavailable

_MODELS = {"name": "MODEL", "last_number": "VERSIONS", "owner": "OWNER", "created_by": "BY", "updated_at": "CHANGED"}
_TIMEOUT_S = 30.0


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for function in (models, deploy, rollback, predict):
        command(app, function.__name__)(function)


def models(session: Session) -> None:
    """List registered models."""
    session.table(
        session.client.get("/models")["models"],
        _MODELS,
        empty="No model is registered.",
        next_command="modelyard deploy MODEL/latest --endpoint NAME",
    )


def deploy(
    session: Session,
    version: Annotated[str, typer.Argument(help="model/3, model@alias or model/latest.")],
    endpoint: Annotated[str, typer.Option(help="Endpoint that answers with it; created if there is none.")],
    entity_key: Annotated[str | None, typer.Option(help="Column that keeps a customer on one version.")] = None,
    time_column: Annotated[str | None, typer.Option(help="Column with the event time of a row.")] = None,
) -> None:
    """Bring a version to an endpoint: the first answers at once, a later one comes as a guarded canary."""
    body = {"version": version, "entity_key": entity_key, "time_column": time_column}
    started = session.client.post(f"/endpoints/{endpoint}/deploy", body)
    session.answer(
        started,
        f"{started['model']}/{started['version']} at {endpoint}: {started['state']}. {started['reason']}",
        next_command=f"modelyard predict {endpoint} --row column=value",
    )


def rollback(
    session: Session,
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint.")],
    to: Annotated[int | None, typer.Option(help="Version to return to; the one before by default.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
) -> None:
    """Take back what was deployed last, at once."""
    ended = session.client.post(f"/endpoints/{endpoint}/rollback", {"to": to, "reason": reason})
    session.answer(
        ended,
        f"{endpoint} is back on version {ended['champion']}.",
        next_command=f"modelyard history endpoint:{endpoint}",
    )


def predict(
    session: Session,
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint.")],
    row: Annotated[list[str] | None, typer.Option(help="column=value; may be repeated: one row in all.")] = None,
    json_file: Annotated[Path | None, typer.Option(help="File with a JSON row or list of rows.")] = None,
) -> None:
    """Ask an endpoint for predictions."""
    if (row is None) == (json_file is None):
        raise Invalid("Give either --row column=value, repeated for each column, or --json-file FILE.")
    body = _from_file(json_file) if json_file else _from_pairs(row or [])
    url = f"{_serve_url(session)}/predict/{endpoint}"
    headers = {"Authorization": f"Bearer {session.settings.token}"} if session.settings.token else {}
    try:
        reply = httpx.post(url, json=body, headers=headers, timeout=_TIMEOUT_S)
    except httpx.TransportError as error:
        raise Unavailable(f"The endpoints at {url} do not answer: {error}.") from error
    document: dict[str, Any] = reply.json()
    if reply.is_error:
        facts = document["error"]
        raise (Unavailable if reply.status_code >= 500 else Invalid)(facts.pop("message"), **facts)
    lines = [f"{each['score']}  {each['label'] or ''}  (version {each['version']})" for each in document["predictions"]]
    session.answer(document, "\n".join(lines), next_command=f"modelyard history endpoint:{endpoint}")


def _serve_url(session: Session) -> str:
    from modelyard.server.control import read_control

    control = read_control(session.settings.home)
    if control is None:
        raise Unavailable("No Modelyard is running in this home. Start it: modelyard up")
    return control.serve_url


def _from_file(file: Path) -> Any:
    try:
        rows = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise Invalid(f"{file} is not a readable JSON file: {error}") from error
    return {"rows": rows} if isinstance(rows, list) else rows


def _from_pairs(pairs: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for pair in pairs:
        name, mark, text = pair.partition("=")
        if not mark:
            raise Invalid(f"{pair!r} is not column=value.")
        try:
            row[name] = json.loads(text)
        except ValueError:
            row[name] = text
    return row
