"""Compression of answers: JSON and the files of the page.

It opens no way for BREACH (compression reveals a secret that stands beside text of the attacker's
choice): no answer contains a key or token, and a browser adds no key by itself to a request of
another site, because keys are sent in `Authorization`, not in cookies.
"""

from __future__ import annotations

from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_SMALLEST = 1400  # bytes; smaller answers fit into one packet anyway
_LEVEL = 5


class Compression(GZipMiddleware):
    """Starlette's gzip for answers to GET; pictures are compressed already.

    Answers to uploads are small, and uploads shall not become slower.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        excluded = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "image/*")
        super().__init__(app, _SMALLEST, _LEVEL, exclude_content_types=excluded)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["method"] == "GET":
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)
