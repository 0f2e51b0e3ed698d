"""OpenAPI entries of the bodies of uploads."""

from __future__ import annotations

from typing import Any

from app.http import examples
from app.http.routes.responses import WAIT
from pictures.findings import MAX_FRAMES, View
from pictures.header import MEDIA_TYPES

MAX_FILES = 64
"""Maximum number of files in a batch."""

MAX_REF_ID = 200
"""Maximum length of a `ref_id` in characters."""

MAX_KEY = 255
"""Maximum length of an `Idempotency-Key` in characters."""

_FIELDS: dict[str, Any] = {
    "view": {"type": "string", "enum": [view.value for view in View]},
    "frames": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_FRAMES,
        "default": 1,
        "description": "how many frames of an animation or pages of a TIFF to examine at most, "
        "evenly over its time; the crops of the view are shared among them",
    },
    "webhook_url": {
        "type": "string",
        "format": "uri",
        "description": "URL that receives the record, signed, when the detection has ended",
        "examples": ["https://hooks.example.com/gamma"],
    },
}
FIELD_NAMES = ("ref_id", *_FIELDS)
"""Fields of a form, beside its files."""

_URL = {
    "type": "string",
    "format": "uri",
    "description": "in place of a file: https URL of the picture, which the service fetches if "
    "`fetch` of `GET /v1/model` is true; the address must be public",
    "examples": ["https://www.example.com/photo.jpg"],
}
_REF_ID = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_REF_ID,
    "description": "your own reference, without control and format characters, and without other "
    "spaces than the plain one",
    "examples": [examples.QUEUED.ref_id],
}
_FILE = {
    "type": "string",
    "format": "binary",
    "description": f"a picture: {', '.join(MEDIA_TYPES)}; the bytes decide, not the name",
}
_HEADERS = [
    *WAIT["parameters"],
    {
        "name": "Idempotency-Key",
        "in": "header",
        "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY},
        "description": "a name for this request. While the record exists, a repeat of the "
        "request returns the same detection, and another request is refused. Simultaneous requests "
        "with one key count as one.",
    },
]


def one_picture() -> dict[str, Any]:
    """Request with one picture: a form, the bytes alone, or JSON; and fields in the query."""
    fields = {**_FIELDS, "url": _URL, "ref_id": _REF_ID}

    def either(name: str) -> dict[str, Any]:
        return {"oneOf": [{"required": [name]}, {"required": ["url"]}]}

    encoded = {
        "type": "string",
        "contentEncoding": "base64",
        "description": "the picture in base64, without line breaks and `data:` prefix",
    }
    content = {
        "multipart/form-data": _form({"file": _FILE, **fields}, "file", **either("file")),
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"image": encoded, **fields},
                "additionalProperties": False,
                **either("image"),
            }
        },
        **{
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in (*MEDIA_TYPES.values(), "application/octet-stream")
        },
    }
    query = [
        {
            "name": name,
            "in": "query",
            "schema": {key: value for key, value in field.items() if key != "description"},
            "description": f"the field `{name}`, for bodies that are the picture alone",
        }
        for name, field in fields.items()
    ]
    return {
        "requestBody": {"required": False, "content": content},
        "parameters": [*_HEADERS, *query],
    }


def several_pictures() -> dict[str, Any]:
    """Request with several pictures: a form."""
    properties = {
        "files": {"type": "array", "items": _FILE, "minItems": 1, "maxItems": MAX_FILES},
        **_FIELDS,
        "ref_id": {
            "type": "array",
            "items": {**_REF_ID, "minLength": 0},
            "maxItems": MAX_FILES,
            "description": "none, or one for each file, in order; empty: none",
        },
    }
    form = _form(properties, "files", required=["files"])
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": form}},
        "parameters": _HEADERS,
    }


def _form(properties: dict[str, Any], file: str, **schema: Any) -> dict[str, Any]:
    return {
        "schema": {"type": "object", "properties": properties, **schema},
        "encoding": {file: {"contentType": ", ".join(MEDIA_TYPES.values())}},
    }
