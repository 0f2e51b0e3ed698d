"""The HTTP API: routes, admission control, uploads, errors and metrics."""
