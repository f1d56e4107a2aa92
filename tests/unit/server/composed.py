"""A home folder with every group of native routes, served in this process."""

from modelyard.app import App
from modelyard.sdk.client import Client
from modelyard.sdk.local import LocalTransport
from modelyard.server.access import Access
from modelyard.server.application import create_application
from modelyard.server.routes.approvals import approval_routes
from modelyard.server.routes.artifacts import artifact_routes, object_routes
from modelyard.server.routes.clock import clock_routes
from modelyard.server.routes.models import model_routes, version_routes
from modelyard.server.routes.runs import run_routes
from modelyard.server.routes.status import status_routes
from modelyard.server.routes.uploads import Uploads
from modelyard.server.routes.workflows import workflow_routes


class Composed(App):
    """The application with the routes of runs, models and what belongs to them."""

    serve_url = None

    def routers(self, checks=None):
        uploads = Uploads(self.settings.home / "uploads", max_bytes=50_000_000)
        return (
            *super().routers(checks),
            run_routes(self.tracking),
            object_routes(self.objects, uploads),
            artifact_routes(self.tracking),
            model_routes(self.registry),
            version_routes(self.registry),
            approval_routes(self.registry),
            workflow_routes(self.engine),
            clock_routes(self.clock),
            status_routes(serve_url=self.serve_url),
        )

    def client(self, *, local=True, token="", project="default"):
        """Return a client of this application, with or without the login that loopback needs not."""
        self.prepare()
        application = create_application(
            Access(self.identity, open_to_local=local), self.routers(), settings=self.settings
        )
        transport = LocalTransport(application)
        return Client("http://localhost", token=token, project=project, transport=transport)
