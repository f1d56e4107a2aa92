"""The ASGI application: identity, native API, health."""
