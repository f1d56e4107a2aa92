"""All command groups together."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard import __version__
from modelyard.cli import audit, identity, processes, runs, safekeeping, serving

app = typer.Typer(
    name="modelyard",
    help="From training script to watched production endpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
processes.register(app)
runs.register(app)
serving.register(app)
audit.register(app)
safekeeping.register(app)
app.add_typer(identity.users, name="user")
app.add_typer(identity.tokens, name="token")


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """From training script to watched production endpoint."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
