"""Calls from web pages of other origins (CORS, WHATWG Fetch)."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from pydantic import ValidationError

from app.contract.settings import Settings
from app.http.api import create_app

DESK = "https://desk.example"
PREFLIGHT = {
    "Origin": DESK,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,idempotency-key,prefer",
}


def answered(method: str, headers: dict[str, str], **settings: object) -> httpx2.Response:
    """The answer of an API without Redis."""
    made = create_app(
        Settings(
            redis_url="redis://127.0.0.1:1/0",
            api_keys="desk=a-secret-of-the-desk",
            **settings,  # type: ignore[arg-type]
        )
    )

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(made)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.request(method, "/v1/detections", headers=headers)

    return asyncio.run(ask())


def test_a_listed_origin_may_call_with_a_key() -> None:
    answer = answered("OPTIONS", PREFLIGHT, cors_origins=f"https://other.example, {DESK}")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == DESK
    assert "access-control-allow-credentials" not in answer.headers
    answer = answered("GET", {"Origin": DESK}, cors_origins=DESK)
    assert answer.json()["code"] == "key_missing"
    assert answer.headers["access-control-allow-origin"] == DESK
    assert "Retry-After" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("listed", ["", "https://other.example", f"{DESK}:8443"])
def test_other_origins_are_not_allowed(listed: str) -> None:
    assert (
        "access-control-allow-origin"
        not in answered("OPTIONS", PREFLIGHT, cors_origins=listed).headers
    )


@pytest.mark.parametrize("origin", ["*", "desk.example", f"{DESK}/", "https://*.example", "null"])
def test_only_exact_origins_can_be_listed(origin: str) -> None:
    with pytest.raises(ValidationError, match="is not an origin"):
        Settings(cors_origins=origin)
