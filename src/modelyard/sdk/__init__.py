"""What training code and the command line call: a client of the native API, local or by URL."""

from modelyard.sdk.client import Client

__all__ = ["Client"]
