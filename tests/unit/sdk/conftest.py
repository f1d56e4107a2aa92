"""A tracker that works on a home folder in this process."""

import pytest

from modelyard.sdk.tracker import Tracker
from modelyard.settings import Settings
from unit.server.composed import Composed


@pytest.fixture
def home(tmp_path):
    made = Composed(Settings(home=tmp_path / "home"))
    yield made
    made.database.close()


@pytest.fixture
def client(home):
    made = home.client()
    yield made
    made.close()


@pytest.fixture
def tracker(home, client):
    """A tracker whose every client is the one of this home."""
    return Tracker(lambda _: client, settings=lambda: home.settings)
