"""The command line: one module per command group."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from modelyard.cli.root import app

    app()
