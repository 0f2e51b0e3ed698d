"""Links of an API behind a proxy with a path prefix."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from urllib.parse import urljoin

import httpx2
import pytest

from app.command.embedded import private_redis
from app.contract.client import connect
from tests.app.conftest import StandIn, new_picture
from tests.app.replica import Replica, assert_problem, replicas

ROOT = "/tools/gamma"


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Replica, StandIn]]:
    folder = tmp_path_factory.mktemp("below")
    with (
        private_redis(folder / "redis", 2**28) as (url, _),
        replicas(url, folder, 1, GAMMA_ROOT_PATH=ROOT) as (api,),
        connect(url) as redis,
    ):
        yield api, StandIn(redis)


@pytest.fixture(params=["path taken away", "path left"])
def client(
    below: tuple[Replica, StandIn], request: pytest.FixtureRequest
) -> Iterator[httpx2.Client]:
    """As a caller behind a proxy, of either kind, whose host is the API's."""
    api, _ = below
    left = ROOT if request.param == "path left" else ""
    with httpx2.Client(base_url=f"{api.url}{left}", timeout=30) as connected:
        yield connected


def test_links_are_paths_of_the_host(below: tuple[Replica, StandIn], client: httpx2.Client) -> None:
    api, standin = below
    answer = client.post("/v1/detections", files={"file": new_picture()})
    assert answer.status_code == 202
    identity = answer.json()["id"]
    location = f"{ROOT}/v1/detections/{identity}"
    assert answer.headers["Location"] == location
    unfinished = client.get(f"/v1/detections/{identity}/masks/ai.png")
    problem = assert_problem(unfinished, 409, "detection_unfinished")
    assert problem["type"] == f"{ROOT}/docs#detection_unfinished"
    assert problem["detection"] == unfinished.headers["Location"] == location
    standin.finish(identity)
    record = httpx2.get(urljoin(api.url, location), timeout=60).json()
    for head, mask in record["masks"].items():
        assert mask["mask_url"] == f"{location}/masks/{head}.png"
        assert mask["overlay_url"] == f"{location}/overlays/{head}.png"
        assert httpx2.get(urljoin(api.url, mask["mask_url"]), timeout=60).status_code == 200


def test_links_of_lists_and_batches(client: httpx2.Client) -> None:
    files = [("files", new_picture()), ("files", new_picture()), ("files", b"nothing")]
    results = client.post("/v1/detections/batch", files=files).json()["results"]
    assert results[2]["problem"]["type"] == f"{ROOT}/docs#not_an_image"
    following = client.get("/v1/detections?limit=1").json()["next"]
    assert following.startswith(f"{ROOT}/v1/detections?limit=1&cursor=")


def test_stored_records_have_no_root_path(
    below: tuple[Replica, StandIn], client: httpx2.Client
) -> None:
    """Other processes may have another, or none."""
    _, standin = below
    identity = client.post("/v1/detections", files={"file": new_picture()}).json()["id"]
    standin.finish(identity)
    kept = standin.redis.hget(f"gamma:detection:{identity}", "record")
    assert kept is not None
    assert json.loads(kept)["masks"]["ai"]["mask_url"].startswith("/v1/")


def test_page_documents_and_damaged_requests(
    below: tuple[Replica, StandIn], client: httpx2.Client
) -> None:
    api, _ = below
    assert client.get("/").status_code == client.get("/static/page.js").status_code == 200
    assert client.get("/openapi.json").json()["servers"] == [{"url": ROOT}]
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as connection:
        connection.sendall(b"no request\r\n\r\n")
        assert f"{ROOT}/docs#malformed_request".encode() in connection.recv(4096)
    mounted = 'gamma_http_requests_total{method="GET",route="/static",status="200"}'
    assert mounted in api.metrics()
