"""The HTTP API: routes, and what stands between a request and the queue."""
