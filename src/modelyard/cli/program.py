"""Entry of the supervised processes: ``python -m modelyard.cli.program NAME``; settings come by environment."""

from __future__ import annotations

import logging
import sys

from modelyard.app import App
from modelyard.errors import Invalid
from modelyard.settings import Settings, read_settings


def main(name: str) -> None:
    """Run one program of the tree until it is told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    programs = {"control": run_control, "collector": run_collector}
    if name not in programs:
        raise Invalid(f"There is no program {name!r}; the programs are {', '.join(programs)}.")
    programs[name](read_settings())


def run_control(settings: Settings) -> None:
    """Run the control plane: API, workflows, ticks."""
    import uvicorn

    uvicorn.run(
        App(settings).control_plane(),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )


def run_collector(settings: Settings) -> None:
    """Turn the workers' records into prediction rows."""
    from modelyard.serving.collector import run_until_signalled

    run_until_signalled(App(settings).collector())


if __name__ == "__main__":
    main(sys.argv[1])
