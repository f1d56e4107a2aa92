"""What every command has: where Modelyard is, how to answer, and what the exit code says.

Exit codes: 0 done, 1 error, 2 usage, 3 unavailable, 4 refused by a gate.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.table import Table

from modelyard.errors import Forbidden, Invalid, ModelyardError, Refused, Unavailable
from modelyard.sdk.client import Client
from modelyard.settings import Settings, read_settings

Home = Annotated[Path | None, typer.Option("--home", help="Folder that holds all state.", show_default=False)]
Server = Annotated[str | None, typer.Option("--server", help="Address of a running server.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


class Session:
    """The surroundings of one command.

    Args:
        settings: Settings, with the command's options applied.
        as_json: Whether to answer in JSON.
    """

    def __init__(self, settings: Settings, *, as_json: bool) -> None:
        self.settings = settings
        self.as_json = as_json
        self.console = Console(soft_wrap=True)

    @functools.cached_property
    def client(self) -> Client:
        """A client of the server, the home's live control plane, or the home itself."""
        from modelyard.app import connect

        return connect(self.settings)

    def answer(self, value: Any, text: str = "", *, next_command: str = "") -> None:
        """Print the result: JSON if asked for, else a sentence and the next useful command."""
        if self.as_json:
            json.dump(value, sys.stdout, indent=2, default=str)
            sys.stdout.write("\n")
            return
        if text:
            self.console.print(text, highlight=False, markup=False)
        if next_command:
            self.console.print(f"Next: {next_command}", style="dim", highlight=False, markup=False)

    def table(
        self,
        rows: Sequence[Mapping[str, Any]],
        columns: Mapping[str, str],
        *,
        empty: str,
        next_command: str = "",
    ) -> None:
        """Print rows as a table, or as JSON.

        Args:
            rows: What to show.
            columns: Key of each column and its heading.
            empty: What to say when there are no rows.
            next_command: The next useful command.
        """
        if self.as_json or not rows:
            self.answer(list(rows), empty, next_command=next_command)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in columns.values():
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row.get(key)) for key in columns))
        self.console.print(table)
        self.answer(None, next_command=next_command)


def command(app: typer.Typer, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function whose first parameter is the ``Session`` as a command.

    The options ``--home``, ``--server`` and ``--json`` are added, and errors become a line on standard error and
    an exit code.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        given = list(inspect.signature(function).parameters.values())[1:]
        own = [parameter.replace(annotation=hints[parameter.name]) for parameter in given]
        common = [
            inspect.Parameter("home", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Home),
            inspect.Parameter("server", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Server),
            inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson),
        ]

        @functools.wraps(function)
        def run(*args: Any, home: Path | None, server: str | None, as_json: bool, **options: Any) -> None:
            try:
                settings = read_settings(home=home, server=server)
                function(Session(settings, as_json=as_json), *args, **options)
            except ModelyardError as error:
                raise typer.Exit(_report(error, as_json=as_json)) from error

        run.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]  # read by Typer
        run.__annotations__ = {p.name: p.annotation for p in (*own, *common)}
        app.command(name)(run)
        return function

    return register


def _report(error: ModelyardError, *, as_json: bool) -> int:
    if as_json:
        json.dump({"code": error.code, "detail": error.message, **error.facts}, sys.stderr, default=str)
        sys.stderr.write("\n")
    else:
        console = Console(stderr=True, soft_wrap=True)
        console.print("Error: ", style="bold red", end="")
        console.print(error.message, highlight=False, markup=False)
    codes: list[tuple[type[ModelyardError], int]] = [
        (Unavailable, 3),
        (Refused, 4),
        (Forbidden, 1),
        (Invalid, 1),
    ]
    return next((code for kind, code in codes if isinstance(error, kind)), 1)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_cell(item)}" for key, item in value.items())
    return str(value)
