"""A whole application in a temporary home."""

import pytest

from modelyard.events import SYSTEM
from modelyard.settings import Settings
from unit.server.composed import Composed


@pytest.fixture
def home(tmp_path):
    """An application of its own home folder, closed at the end."""
    made = Composed(Settings(home=tmp_path / "home"))
    yield made
    made.database.close()


@pytest.fixture
def client(home):
    """A client as the operating-system user on loopback, with every role."""
    made = home.client()
    yield made
    made.close()


@pytest.fixture
def login(home):
    """A function that makes a user and returns its client, which has to log in."""
    made = []

    def make(name, *roles, project="default", asks="default", labels=()):
        given = {project: frozenset(roles)}
        home.prepare()
        home.identity.create_user(name, actor=SYSTEM, roles=given, labels=frozenset(labels))
        _, secret = home.identity.create_token(name, "test", actor=SYSTEM)
        made.append(home.client(local=False, token=secret, project=asks))
        return made[-1]

    yield make
    for each in made:
        each.close()
