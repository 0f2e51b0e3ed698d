"""The moderators' page and the API documentation; neither loads files from other hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

_STATIC = Path(__file__).parents[2] / "static"
_SWAGGER_UI = Path(fastapi_offline.__file__).parent / "static"

# Browsers revalidate files each time, so that an upgrade never mixes old and new files.
_REVALIDATE = {"Cache-Control": "no-cache"}

router = APIRouter(include_in_schema=False)


class _Revalidated(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_REVALIDATE)
        return response


@router.get("/")
async def page() -> FileResponse:
    """The moderators' page."""
    return FileResponse(_STATIC / "index.html", headers=_REVALIDATE)


@router.get("/docs")
async def docs() -> FileResponse:
    """The API documentation."""
    return FileResponse(_STATIC / "docs.html", headers=_REVALIDATE)


def mount_static(api: FastAPI) -> None:
    """Serve the files that the two pages load."""
    api.mount("/static", _Revalidated(directory=_STATIC))
    api.mount("/swagger-ui", _Revalidated(directory=_SWAGGER_UI))
