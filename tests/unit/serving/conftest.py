"""Fixtures of the data plane's own tests."""

from __future__ import annotations

import pytest

from unit.serving.worlds import World


@pytest.fixture
def make_world(tmp_path):
    """Make worlds that are closed at the end of the test."""
    made = []

    def make(**given):
        folder = tmp_path / f"world-{len(made)}"
        made.append(World(folder, **given))
        return made[-1]

    yield make
    for world in made:
        world.book.close()
