"""Upload forms: limits, and the memory and disk that they share."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator

import httpx2
import pytest

from app.command.embedded import private_redis
from app.http.problems import ServiceError
from app.http.resources import FairSemaphore
from app.http.uploads import SMALL
from tests.app.replica import Replica, assert_problem, replicas
from tests.conftest import encode, photo

ALICE, BOB = "alice-secret-0123456789", "bob-secret-9876543210"
SPACE = 4 * 2**20
MAX_UPLOAD = 9 * 2**20
LARGE = SMALL + SMALL // 2
PICTURE = encode(photo(16, 16), "PNG")
LARGE_PICTURE = PICTURE + bytes(LARGE)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = tmp_path_factory.mktemp("uploads")
    settings = {
        "GAMMA_API_KEYS": f"alice={ALICE},bob={BOB}",
        "GAMMA_UPLOAD_SPACE": str(SPACE),
        "GAMMA_MAX_UPLOAD": str(MAX_UPLOAD),
    }
    with (
        private_redis(folder / "redis", 2**28) as (url, _),
        replicas(url, folder, 1, **settings) as (one,),
    ):
        yield one


@pytest.fixture
def alice(api: Replica) -> Iterator[httpx2.Client]:
    with api.client(ALICE) as client:
        yield client


def form(*parts: str, body: bytes = PICTURE, end: bytes = b"--") -> tuple[bytes, dict[str, str]]:
    """A body with these `Content-Disposition`s, each part the same, and its header fields."""
    content = b"".join(
        f"--b\r\nContent-Disposition: {part}\r\n\r\n".encode() + body + b"\r\n" for part in parts
    )
    return content + b"--b" + end + b"\r\n", {"Content-Type": "multipart/form-data; boundary=b"}


def post(client: httpx2.Client, *parts: str, **options: bytes) -> httpx2.Response:
    content, headers = form(*parts, **options)
    return client.post("/v1/detections", content=content, headers=headers)


# -- limits of a form -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    ['form-data; name="file"', 'form-data; name="file"; filename=""', "form-data; name=file"],
)
@pytest.mark.parametrize("body", [PICTURE, LARGE_PICTURE])
def test_a_file_needs_no_name(alice: httpx2.Client, part: str, body: bytes) -> None:
    answer = post(alice, part, body=body)
    assert answer.status_code == 202, answer.text
    assert alice.get(f"{answer.headers['location']}/image").content == body


@pytest.mark.parametrize("path", ["/v1/detections", "/v1/detections/batch"])
@pytest.mark.parametrize("large", [False, True])
def test_an_unknown_field_is_refused_by_name(alice: httpx2.Client, path: str, large: bool) -> None:
    part = "files" if path.endswith("batch") else "file"
    picture = LARGE_PICTURE if large else PICTURE
    for field in ({"data": {"views": "center"}}, {"files": {"views": b"x"}}):
        files = {part: picture, **field.get("files", {})}
        answer = alice.post(path, files=files, data=field.get("data"))
        detail = assert_problem(answer, 400, "malformed_request")["detail"]
        assert "`views`" in detail
        assert f"{part}, ref_id, view, frames, webhook_url" in detail


def test_file_in_a_text_field_is_refused(alice: httpx2.Client) -> None:
    answer = alice.post("/v1/detections", files={"file": PICTURE, "view": b"center"})
    assert "`view`" in assert_problem(answer, 400, "malformed_request")["detail"]


@pytest.mark.parametrize(
    ("parts", "options", "told"),
    [
        (['form-data; name="file"'], {"end": b""}, "last boundary"),
        (["form-data"], {}, "no name"),
        (['form-data; name="ref_id"', 'form-data; name="file"'], {"body": b"\xff"}, "UTF-8"),
        (['form-data; name="view"'] * 30, {"body": b"center"}, "17 text fields"),
        (['form-data; name="ref_id"'], {"body": bytes(2**18)}, "67584 bytes"),
        (['form-data; name="file"\r\nX: ' + "y" * 5_000], {}, "4096 bytes"),
        (['form-data; name="file"\r\nX: ' + "y" * 100_000], {}, "4096 bytes"),
        (['form-data; name="file"\r\n' + "x" * 5_000 + ": y"], {}, "4096 bytes"),
        (['form-data; name="file"' + "\r\nX: y" * 100], {}, "8 header fields"),
    ],
    ids=[
        *("no end", "no name", "no UTF-8", "many fields", "long field", "long header"),
        *("very long header", "long name of a header", "many headers"),
    ],
)
def test_limits_of_a_form(alice: httpx2.Client, parts: list[str], options: dict, told: str) -> None:
    detail = assert_problem(post(alice, *parts, **options), 400, "malformed_request")["detail"]
    assert told in detail


@pytest.mark.parametrize("name", ["", '; filename="x"'])
def test_file_too_large(alice: httpx2.Client, name: str) -> None:
    answer = post(alice, f'form-data; name="file"{name}', body=PICTURE + bytes(MAX_UPLOAD))
    assert f"{MAX_UPLOAD} bytes" in assert_problem(answer, 413, "upload_too_large")["detail"]


# -- shared resources -----------------------------------------------------------------------------


def held(semaphore: FairSemaphore, *requests: tuple[str, int]) -> list[bool]:
    """Which requests, made one after the other and kept, are granted."""

    async def make() -> list[bool]:
        found = []
        async with contextlib.AsyncExitStack() as stack:
            for caller, size in requests:
                found.append(semaphore.available(caller, size))
                with contextlib.suppress(ServiceError):
                    await stack.enter_async_context(semaphore.hold(caller, size))
        assert semaphore.available("anyone", semaphore.capacity), "all of it is given back"
        return found

    return asyncio.run(make())


def test_caller_gets_no_more_than_it_leaves_free() -> None:
    semaphore = FairSemaphore(100, "bytes", timeout=0)
    assert held(semaphore, *[("alice", 10)] * 7) == [True] * 5 + [False] * 2
    assert held(semaphore, *[("alice", 10)] * 9, *[("bob", 10)] * 4) == (
        [True] * 5 + [False] * 4 + [True] * 2 + [False] * 2
    )


def test_first_request_may_hold_all_that_is_free() -> None:
    semaphore = FairSemaphore(100, "bytes", timeout=0)
    assert held(semaphore, ("alice", 80), ("alice", 1), ("bob", 21), ("bob", 20)) == [
        True,
        False,
        False,
        True,
    ]


def test_released_amount_goes_to_waiting_requests() -> None:
    async def scenario() -> list[str]:
        semaphore, order = FairSemaphore(10, "bytes", timeout=60), []

        async def use(caller: str, seconds: float) -> None:
            async with semaphore.hold(caller, 8):
                order.append(caller)
                await asyncio.sleep(seconds)

        await asyncio.gather(use("alice", 0.01), use("bob", 0.01), use("carol", 0))
        return order

    assert asyncio.run(scenario()) == ["alice", "bob", "carol"]


def test_number_of_waiting_requests_is_limited() -> None:
    async def scenario() -> None:
        semaphore = FairSemaphore(10, "bytes", timeout=60)
        async with semaphore.hold("alice", 10):
            waiting = [asyncio.create_task(semaphore.acquire("bob", 10)) for _ in range(64)]
            await asyncio.sleep(0)
            with pytest.raises(ServiceError):
                await semaphore.acquire("bob", 10)
            for one in waiting:
                one.cancel()
            await asyncio.wait(waiting)

    asyncio.run(scenario())


def test_incomplete_uploads_leave_capacity_for_others(api: Replica, alice: httpx2.Client) -> None:
    content, _ = form('form-data; name="file"; filename="x"', body=LARGE_PICTURE)
    head = (
        "POST /v1/detections HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {ALICE}\r\nContent-Length: {len(content)}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    ).encode()
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", api.port)))
            connection.sendall(head + content[:100_000])
        upload = {"files": {"file": LARGE_PICTURE}}
        refused = alice.post("/v1/detections", **upload)
        assert_problem(refused, 503, "too_many_uploads")
        assert refused.headers["retry-after"] == "5"
        assert alice.post("/v1/detections", files={"file": PICTURE}).status_code == 202
        with api.client(BOB) as bob:
            assert bob.post("/v1/detections", **upload).status_code == 202
    assert alice.post("/v1/detections", **upload).status_code == 202, "the space is free again"


def test_chunked_body_is_counted_while_it_arrives(alice: httpx2.Client) -> None:
    content, headers = form('form-data; name="file"', body=PICTURE + bytes(2 * SPACE))
    pieces = (content[at : at + 2**16] for at in range(0, len(content), 2**16))
    answer = alice.post("/v1/detections", content=pieces, headers=headers)
    assert answer.status_code == 202, "more than the capacity: all of it"


def test_full_disk_is_reported(api: Replica, alice: httpx2.Client) -> None:
    pid = api.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (2**19, resource.RLIM_INFINITY))
    refused = alice.post("/v1/detections", files={"file": LARGE_PICTURE})
    assert_problem(refused, 503, "storage_unavailable")
    assert refused.headers["retry-after"] == "5"
    assert alice.post("/v1/detections", files={"file": PICTURE}).status_code == 202
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert alice.post("/v1/detections", files={"file": LARGE_PICTURE}).status_code == 202
    assert api.unexpected_errors() == []


# -- query parameters -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/detections?state=failed", "state"),
        ("GET", "/v1/detections?limit=5&limit=6", "limit"),
        ("GET", "/v1/detections/none?verbose", "verbose"),
        ("GET", "/v1/detections/none/image?width=10", "width"),
        ("GET", "/v1/detections/none/overlays/ai.png?opacity=1&color=red", "color"),
        ("DELETE", "/v1/detections/none?dry_run=true", "dry_run"),
        ("POST", "/v1/detections?size=64", "size"),
        ("GET", "/v1/model?x=" + "y" * 1000, "x"),
    ],
)
def test_unknown_query_parameter_is_refused(
    alice: httpx2.Client, method: str, path: str, name: str
) -> None:
    document = assert_problem(alice.request(method, path), 400, "malformed_request")
    assert document["detail"].startswith(f"`{name}` is ")


def test_known_query_parameters_are_accepted(alice: httpx2.Client) -> None:
    assert alice.get("/v1/detections?limit=5").status_code == 200
    named = alice.get("/v1/detections?ids=a,b&ids=c").json()
    assert named["missing"] == ["a", "b", "c"]
