"""docs/integrate.md: every command does what the page says, against a whole service.

And the examples of the OpenAPI document, to which the page leads, are what the code says.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from app.contract import records
from app.contract.schemas import ErrorCode
from app.http import examples
from app.http.pictures import inspect
from app.http.problems import STATUS, ServiceError
from app.webhooks.targets import TargetRefusedError, Targets
from pictures.decoding import decode
from pictures.errors import PictureError
from tests.app.receiver import Receiver, wait_for
from tests.conftest import Serve, encode, photo, require_program

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "integrate.md").read_text()
BLOCKS = [
    re.findall(r"^\$ (.*)$", block, re.MULTILINE)
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
]
ONE_PICTURE, FOLDER = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PICTURES = 6
MOST = 4  # under way in the test of the program, instead of a hundred
CLIENT = {"PYTHONPATH": str(ROOT / "clients" / "python")}
RATE_LIMIT = 60  # a minute


def shell(commands: list[str], folder: Path, **environment: str) -> str:
    """What the commands print, one after the other in one shell; the first failure ends it."""
    done = subprocess.run(
        [require_program("bash"), "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("integrate")
    for number, name in enumerate(("photo", "second", "third")):
        (made / f"{name}.jpg").write_bytes(encode(photo(64, 64, number)))
    (made / "notes.txt").write_text("no picture")
    return made


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    """What the first block sets."""
    *exports, last = BLOCKS[0]
    assert last == "gamma serve"
    lines = shell([*exports, "env"], folder).splitlines()
    return dict(line.split("=", 1) for line in lines if line.startswith("GAMMA_"))


@pytest.fixture(scope="module")
def service(folder: Path, environment: dict[str, str], small_model: Path) -> Iterator[Serve]:
    running = Serve(
        folder / "data",
        *("--checkpoint", str(small_model), "--device", "cpu"),
        **environment,
        GAMMA_RATE_LIMIT=f"{RATE_LIMIT}/minute",
        GAMMA_WEBHOOK_ALLOW="127.0.0.1",
    )
    try:
        yield running.wait_until_ready()
    finally:
        running.stop()


def test_commands(
    service: Serve, folder: Path, environment: dict[str, str], receiver: Receiver
) -> None:
    (_, address, _, one, bodies, location, masks, many, events, twice, told, refused) = BLOCKS
    # What stands for the reader's own machines is all that is replaced.
    set_address = address[0].replace("http://127.0.0.1:8000", service.url)
    assert set_address != address[0]
    told = [told[0].replace("https://hooks.example.com/gamma", f"{receiver.url}/gamma")]

    def run(*commands: str) -> str:
        return shell([set_address, *commands], folder, **environment)

    ready, model = run(address[1], "echo", address[2]).splitlines()
    assert json.loads(ready)["workers"] == 1
    assert json.loads(model)["version"] == "small"
    assert json.loads(run(*one))["status"] == "succeeded"

    raw, encoded = map(json.loads, run(bodies[0], "echo", bodies[1]).splitlines())
    assert (raw["ref_id"], encoded["ref_id"]) == ("upload-8813", "upload-8814")
    assert raw["image"] == encoded["image"]

    *_, unchanged = run(*location, *masks).splitlines()
    assert unchanged == "304"
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "succeeded"
    assert record["ref_id"] == json.loads((folder / "queued.json").read_text())["ref_id"]
    for name in ("mask.png", "report.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG"), name
    assert not (folder / "unchanged.png").exists() or not (folder / "unchanged.png").read_bytes()

    batch, listed = run(many[0], "echo", many[1]).splitlines()
    assert [entry["status"] for entry in json.loads(batch)["results"]][2] == 415
    assert {"a", "b", "upload-8812"} <= {d["ref_id"] for d in json.loads(listed)["detections"]}

    assert f'"id":"{raw["id"]}"' in run(*events)

    first, again = run(twice[0], "echo", twice[1]).splitlines()
    assert json.loads(first)["id"] == json.loads(again)["id"]

    accepted = json.loads(run(*told))
    wait_for(lambda: receiver.at("/gamma"))
    assert receiver.at("/gamma")[0].event["detection"]["id"] == accepted["id"]

    problem = json.loads(run(*refused))
    assert (problem["code"], problem["request_id"]) == ("not_an_image", "upload-8814")


class Between:
    """Stands between program and service, does to it what can happen, and takes notes.

    One answer to an upload and one to a question are cut, and one detection is deleted.
    """

    def __init__(self, service: Serve, key: str) -> None:
        self.service, self.key = service, key
        self.calls: list[tuple[str, int]] = []
        self.accepted: set[str] = set()
        self.under_way: set[str] = set()
        self.most = 0
        self.cut = {"POST", "GET"}
        self.deleted = ""
        self._guard = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Between:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def pass_on(self, method: str, path: str, headers: Message, body: bytes) -> httpx2.Response:
        names = ("Authorization", "Idempotency-Key", "Content-Type")
        given = {name: headers[name] for name in names if name in headers}
        with self.service.client() as client:
            answer = client.request(method, path, headers=given, content=body)
            with self._guard:
                self.calls.append((method, answer.status_code))
                if answer.is_success and method == "POST":
                    self.accepted.add(answer.json()["id"])
                    waits = not is_final(answer.json())
                    if waits and not self.deleted and "POST" not in self.cut:
                        self.deleted = answer.json()["id"]
                        client.delete(f"/v1/detections/{self.deleted}", headers=given)
        return answer

    def is_cut(self, method: str, answer: httpx2.Response) -> bool:
        """Whether this answer gets lost; the program knows what the others say."""
        with self._guard:
            if answer.is_success and method in self.cut:
                self.cut.remove(method)
                return True
            if answer.is_success and method == "POST" and not is_final(answer.json()):
                self.under_way.add(answer.json()["id"])
                self.most = max(self.most, len(self.under_way))
            elif answer.is_success and "detections" in answer.json():
                records = answer.json()["detections"]
                self.under_way -= {record["id"] for record in records if is_final(record)}
                self.under_way -= set(answer.json()["missing"])
        return False


def is_final(record: dict) -> bool:
    return record["status"] not in ("queued", "processing")


def _handler(between: Between) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = between.pass_on(self.command, self.path, self.headers, body)
            content = answer.content
            if between.is_cut(self.command, answer):
                # An upload's goes as if a line were broken, a question's in the midst of it.
                self.close_connection = True
                if self.command == "POST":
                    return
                content = content[:20]
            self.send_response(answer.status_code)
            for name in ("Content-Type", "Retry-After"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def exhaust(client: httpx2.Client) -> httpx2.Response:
    """Use up the rate limit, by a batch of files that all are refused."""
    return client.post("/v1/detections/batch", files=[("files", b"")] * (RATE_LIMIT + 4))


@pytest.fixture
def client(service: Serve, environment: dict[str, str]) -> Iterator[httpx2.Client]:
    with service.client() as connected:
        connected.headers["Authorization"] = f"Bearer {environment['GAMMA_KEY']}"
        yield connected


def test_documented_answers(client: httpx2.Client, folder: Path) -> None:
    picture = {"file": (folder / "photo.jpg").read_bytes()}
    key = {"Idempotency-Key": "counted", "Prefer": "wait=3600"}
    first, again = (client.post("/v1/detections", files=picture, headers=key) for _ in range(2))
    assert first.headers["Preference-Applied"] == "wait=60"
    assert first.json()["id"] == again.json()["id"]

    path = f"{first.headers['Location']}/masks/ai.png"
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.headers["ETag"]) == (200, got.headers["ETag"])
    assert head.content == b""

    def answers(ref_id: str) -> int:
        return client.post("/v1/detections", files=picture, data={"ref_id": ref_id}).status_code

    assert answers("фото 1.jpg") == 200
    for character in ("\t", "\u200b", "\u00a0"):  # a control, a format, an unusual space
        assert answers(f"1{character}2") == 400, ascii(character)

    batch = exhaust(client)
    refused = [entry for entry in batch.json()["results"] if entry["status"] == 429]
    assert refused
    for entry in refused:
        assert str(entry["problem"]["retry_after"]) == batch.headers["Retry-After"]
    # The limit is asked before the key: with nothing left, a repeat is refused.
    assert client.post("/v1/detections", files=picture, headers=key).status_code == 429


def program(code: str, *arguments: str, **environment: str) -> list[str]:
    """The lines that a program of the page prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**CLIENT, **environment, "PYTHONIOENCODING": "ascii"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_program_for_one_picture(service: Serve, folder: Path, environment: dict[str, str]) -> None:
    code = ONE_PICTURE.replace("photo.jpg", str(folder / "photo.jpg"))
    (line,) = program(code, **environment, GAMMA=service.url)
    assert re.fullmatch(r"(authentic|uncertain|ai_generated) 0\.\d+", line)


def test_program_for_a_folder(
    service: Serve, client: httpx2.Client, folder: Path, environment: dict[str, str]
) -> None:
    """Any names, no rate limit left, broken connections, a deletion; never many under way."""
    uploads = folder / "uploads"
    (uploads / "inner").mkdir(parents=True)
    names = [f"{number}.png" for number in range(PICTURES)]
    names += ["фото.jpg", "é.jpg", "inner/1.png"]
    for number, name in enumerate(names):
        (uploads / name).write_bytes(encode(photo(32, 32, 100 + number), "PNG"))
    (uploads / "text.png").write_text("no picture")
    few = FOLDER.replace("argv[1])", f"argv[1], waiting={MOST})")
    assert few != FOLDER
    exhaust(client)
    with Between(service, environment["GAMMA_KEY"]) as between:
        printed = program(few, str(uploads), **environment, GAMMA=between.url)
    lines = [line.removeprefix(f"{uploads}/") for line in printed]
    (deleted,) = (line for line in lines if line.endswith("was deleted"))
    (refused,) = (line for line in lines if line.startswith("text.png "))
    assert refused.startswith("text.png 415 not_an_image: ")
    shown = [name.encode("ascii", "backslashreplace").decode() for name in names]
    assert deleted.split()[0] in shown
    expected = [f"{name} uncertain" for name in shown if name != deleted.split()[0]]
    assert sorted(lines) == sorted([*expected, deleted, refused])

    assert ("POST", 429) in between.calls
    assert between.cut == set()
    assert len(between.accepted) == len(names)  # the upload whose answer was lost is one detection
    assert between.under_way == set()
    assert between.most <= MOST


def test_table_has_every_error() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| \S", PAGE, re.MULTILINE)
    every = [(code.value, str(status)) for code, (status, _) in STATUS.items()]
    assert sorted(rows) == sorted(every)


def test_examples_match_the_service() -> None:
    """Those of the OpenAPI document that a file, a URL or the time brings about."""
    limit = 64_000_000
    for code, data in {
        ErrorCode.FILE_EMPTY: b"",
        ErrorCode.NOT_AN_IMAGE: b"no picture",
        ErrorCode.FORMAT_UNSUPPORTED: b"%PDF-1.7",
        ErrorCode.CAMERA_RAW: b"FUJIFILMCCD-RAW 0201",
        ErrorCode.TOO_MANY_PIXELS: encode(Image.new("1", (12_000, 9_000)), "PNG"),
        ErrorCode.TOO_ELONGATED: encode(Image.new("1", (6000, 100)), "PNG"),
    }.items():
        with pytest.raises(ServiceError) as refused:
            inspect(data, limit)
        assert (refused.value.code, refused.value.detail) == (code, examples.problem(code).detail)

    picture = encode(photo(64, 64), "PNG")
    for code, data in {  # as the worker writes them into the record
        ErrorCode.IMAGE_TRUNCATED: picture[: len(picture) // 2],
        ErrorCode.IMAGE_UNDECODABLE: picture[:60] + bytes(40) + picture[100:],
    }.items():
        with pytest.raises(PictureError) as broken:
            decode(data, max_pixels=limit)
        assert broken.value.detail == examples.problem(code).detail

    with pytest.raises(TargetRefusedError) as target:
        Targets(None).check("http://hooks.example.com/")
    assert str(target.value) == examples.problem(ErrorCode.WEBHOOK_REFUSED).detail

    later = {"expires_at": datetime.now(UTC) + timedelta(days=1)}
    queued = examples.QUEUED.model_copy(update=later).model_dump_json().encode()
    assert records.read([b"queued", queued, b"0"]) == examples.EXPIRED.model_copy(update=later)
