"""A home folder served in this process, with or without the login that loopback needs not."""

from modelyard.app import App
from modelyard.sdk.client import Client
from modelyard.sdk.local import LocalTransport
from modelyard.server.access import Access
from modelyard.server.application import create_application


class Composed(App):
    """The application as it is, and clients of it."""

    def client(self, *, local=True, token="", project="default"):
        """Return a client of this application, with or without the login that loopback needs not."""
        self.prepare()
        application = create_application(
            Access(self.identity, open_to_local=local), self.routers(), settings=self.settings
        )
        transport = LocalTransport(application)
        return Client("http://localhost", token=token, project=project, transport=transport)
