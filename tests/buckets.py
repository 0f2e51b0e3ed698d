"""An S3 server on loopback behind a proxy that can be cut."""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from typing import Self

import boto3

from tests.ports import free_port

_START_TIMEOUT = 200  # s
_NAMES = itertools.count()
SECRET = "a-secret-that-no-log-may-hold"


class Link:
    """A TCP proxy to another port; once cut, it refuses connections like a dead server."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener: socket.socket | None = None
        self._connections: list[socket.socket] = []
        self._guard = threading.Lock()
        self.port = free_port()
        self.open()

    def open(self) -> None:
        """Accept connections (again), on the same port."""
        if self._listener is not None:
            return
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Refuse new connections and break existing ones."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with self._guard:
            broken, self._connections = self._connections, []
        for connection in broken:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # cut
            while True:
                near, _ = listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    raise
                with self._guard:
                    self._connections += [near, far]
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, selectors.DefaultSelector() as ready, contextlib.suppress(OSError):
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(65536)
                    if not data:
                        return
                    key.data.sendall(data)


class BucketServer:
    """`moto`'s S3 server in a separate process, behind a `Link`."""

    def __enter__(self) -> Self:
        port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "false"},
        )
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            assert self.process.poll() is None
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.link = Link(port)
        self.direct = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.link.port}",
            "AWS_ACCESS_KEY_ID": "an-access-key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        return self

    def __exit__(self, *_: object) -> None:
        self.link.cut()
        self.process.kill()
        self.process.wait()


class Bucket:
    """A new bucket, with a client independent of the code under test."""

    def __init__(self, server: BucketServer) -> None:
        self.server = server
        self.name = f"pictures-{next(_NAMES)}"
        self.url = f"s3://{self.name}/gamma"
        self.s3 = boto3.client(
            "s3",
            endpoint_url=server.direct,
            aws_access_key_id="another-key",
            aws_secret_access_key="another-secret",
            region_name="us-east-1",
        )
        self.s3.create_bucket(Bucket=self.name)

    def objects(self) -> list[str]:
        """Names of all objects."""
        answer = self.s3.list_objects_v2(Bucket=self.name)
        return [entry["Key"] for entry in answer.get("Contents", ())]

    def contents(self) -> list[bytes]:
        """Contents of all objects, sorted."""
        return sorted(
            self.s3.get_object(Bucket=self.name, Key=key)["Body"].read() for key in self.objects()
        )
