"""Groups of native routes, one module per object."""
