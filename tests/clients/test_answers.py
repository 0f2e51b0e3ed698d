"""What the client makes of answers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from gamma_client import (
    AsyncClient,
    Client,
    DetectionFailedError,
    GammaError,
    ServiceError,
    StillWaitingError,
)

from app.http import examples
from tests.clients.conftest import ADDRESS, Answer, Run, Service, answer, problem, record, refuse


def test_requests_go_below_the_address_with_the_key(run: Run) -> None:
    service = Service(answer(200, json=record()))
    run(service, lambda client: client.get("a/../b?c"))
    (request,) = service.requests
    assert str(request.url) == f"{ADDRESS}/v1/detections/a%2F..%2Fb%3Fc"
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.headers["User-Agent"].startswith("gamma-client")


@pytest.mark.parametrize("key", ["secret\n", "se cret", "sécret", "\tsecret"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_key_that_cannot_be_sent_is_not_shown(kind: type, key: str) -> None:
    with pytest.raises(ValueError, match="the key") as refused:
        kind(ADDRESS, key)
    assert "cret" not in str(refused.value)


def test_later_versions_may_add_fields_and_values(run: Run) -> None:
    found = record(verdict="partly", notes=["new_note"], new_field={"x": 1}, not_judged="new")
    detection = run(Service(answer(200, json=found)), lambda client: client.get("a"))
    assert (detection.verdict, detection.notes) == ("partly", ["new_note"])
    assert detection.created_at == examples.SUCCEEDED.created_at

    with pytest.raises(ServiceError) as refused:
        run(Service(refuse(418, "new_code")), lambda client: client.get("a"))
    assert refused.value.code == "new_code"


@pytest.mark.parametrize(
    ("given", "code", "detail"),
    [
        (answer(404, json=problem(404, "not_found")), "not_found", "why"),
        (answer(404, text="<html>nothing here"), "", "<html>nothing here"),
        (answer(404, json=["not_found"]), "", '["not_found"]'),
        (answer(404, content=b"\xff\xfe{"), "", "��{"),
        (answer(404), "", "Not Found"),
    ],
)
def test_an_error_is_typed_whoever_sent_it(run: Run, given: Answer, code: str, detail: str) -> None:
    with pytest.raises(ServiceError) as refused:
        run(Service(given), lambda client: client.get("a"))
    assert (refused.value.status, refused.value.code) == (404, code)
    assert refused.value.detail == detail


def test_the_conflict_has_the_current_review(run: Run) -> None:
    current = examples.REVIEW.model_dump(mode="json")
    conflict = answer(412, json=problem(412, "review_conflict", review=current))
    with pytest.raises(ServiceError) as refused:
        run(Service(conflict), lambda client: client.reviews.decide("a", "ai"))
    assert refused.value.problem["review"]["decision"] == current["decision"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"id": 1}', b""])
def test_a_page_of_a_proxy_is_no_record(run: Run, body: bytes) -> None:
    with pytest.raises(GammaError, match="unexpected answer of /below/v1/detections/a"):
        run(Service(answer(200, content=body)), lambda client: client.get("a"))


def test_waiting_holds_requests_until_the_end(run: Run, pauses: list[float]) -> None:
    service = Service(*[answer(200, json=record("queued"))] * 2, answer(200, json=record()))
    assert run(service, lambda client: client.wait("a")).verdict == examples.SUCCEEDED.verdict
    assert [request.headers["Prefer"] for request in service.requests] == ["wait=60"] * 3
    assert len(pauses) == 2
    assert all(0.5 < pause <= 1 for pause in pauses)  # these answers were not held


def test_waiting_ends(run: Run) -> None:
    service = Service(answer(200, json=record("queued")))
    with pytest.raises(StillWaitingError) as waiting:
        run(service, lambda client: client.wait("a", timeout=0))
    assert waiting.value.detection.status == "queued"
    assert service.requests[0].headers["Prefer"] == "wait=0"


@pytest.mark.parametrize("status", ["failed", "expired"])
def test_a_detection_without_result_is_no_result(run: Run, status: str) -> None:
    """`verdict` of these records is null, which a program may take for `not ai_generated`."""
    service = Service(answer(202, json=record("queued")), answer(200, json=record(status)))
    with pytest.raises(DetectionFailedError) as failed:
        run(service, lambda client: client.detect(b"picture"))
    assert failed.value.detection.status == status
    assert run(service, lambda client: client.get("a")).status == status


def test_pages_are_read_when_they_are_needed() -> None:
    ids = [f"{number:03}" for number in range(1000)]

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(dict(request.url.params))
        begin = int(request.url.params.get("cursor", 0))
        # A page may be short, or empty, with others to follow; links have the path of a proxy.
        page = [] if begin == 100 else ids[begin : begin + 100]
        found = {"detections": [record(id=name) for name in page], "next": None}
        if begin < 900:
            found["next"] = f"/elsewhere/v1/detections?limit=100&cursor={begin + 100}&status=failed"
        return httpx2.Response(200, json=found)

    asked: list[dict[str, str]] = []
    http = httpx2.Client(transport=httpx2.MockTransport(handler))
    with Client(ADDRESS, http=http) as client:
        listed = client.detections(status="succeeded")
        assert asked == []
        assert [next(listed).id for _ in range(100)] == ids[:100]
        assert asked == [{"limit": "100", "status": "succeeded"}]
        assert next(listed).id == "200"
        assert asked[1:] == [
            {"limit": "100", "status": "succeeded", "cursor": "100"},
            {"limit": "100", "status": "succeeded", "cursor": "200"},
        ]
        assert sum(1 for _ in listed) == 1000 - 201


def test_conditions_are_sent_as_the_service_reads_them(run: Run) -> None:
    service = Service(answer(200, json={"detections": []}))
    since = datetime(2026, 1, 31, 12, tzinfo=UTC)
    run(
        service,
        lambda client: client.detections(
            manipulated=False, min_probability=0.5, created_after=since, ref_id="a,b&c"
        ),
    )
    assert dict(service.requests[0].url.params) == {
        "limit": "100",
        "manipulated": "false",
        "min_probability": "0.5",
        "created_after": "2026-01-31T12:00:00+00:00",
        "ref_id": "a,b&c",
    }
    with pytest.raises(ValueError, match="time zone"):
        run(service, lambda client: client.detections(created_after=datetime(2026, 1, 31)))


def test_an_upload_has_one_picture(run: Run, tmp_path: Path) -> None:
    service = Service(answer(202, json=record()))
    for given in ({}, {"picture": b"x", "url": "https://example.com/a.png"}):
        with pytest.raises(ValueError, match="picture or the url"):
            run(service, lambda client, given=given: client.submit(**given))
    with pytest.raises(FileNotFoundError):
        run(service, lambda client: client.submit(tmp_path / "missing.png"))
    with pytest.raises(ValueError, match="ref_id for each"):
        run(service, lambda client: client.submit_batch([b"x"], ref_ids=["a", "b"]))
    assert service.requests == []


def test_each_entry_of_a_batch_is_accepted_or_refused(run: Run) -> None:
    sent = examples.BATCH.model_dump(mode="json")
    service = Service(answer(207, json=sent))
    entries = run(service, lambda client: client.submit_batch([b"1", b"2"], ref_ids=["a", "b"]))
    assert [entry.status for entry in entries] == [one["status"] for one in sent["results"]]
    accepted, refused = (
        next(entry for entry in entries if (entry.problem is None) is good)
        for good in (True, False)
    )
    assert accepted.detection is not None
    assert refused.detection is None
    error = ServiceError.of(refused.problem)
    assert (error.status, error.code) == (refused.status, refused.problem.code)
    assert service.requests[0].headers["Idempotency-Key"]
    assert service.requests[0].content.count(b'name="files"') == 2


def test_a_cancelled_upload_leaves_nothing_open(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"picture")
    closed = []

    class Body(httpx2.AsyncByteStream):
        async def __aiter__(self):
            arrived.set()
            await asyncio.Event().wait()  # an answer that never comes
            yield b""

        async def aclose(self) -> None:
            closed.append(True)

    async def handler(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, stream=Body())

    async def main() -> None:
        global arrived
        arrived = asyncio.Event()
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
        async with AsyncClient(ADDRESS, http=http) as client:
            upload = asyncio.create_task(client.submit(picture))
            await arrived.wait()
            upload.cancel()
            with pytest.raises(asyncio.CancelledError):
                await upload
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert closed == [True]
