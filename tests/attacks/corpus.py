"""Attacks as data.

`python -m tests.attacks.corpus PORT SECONDS` reads names of attacks from standard input, one per
line, carries them out and prints `ready` before each, `full` once all its connections are open, and
`done` after it. An attack goes on until the next line, which is empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.pictures.bombs import BOMBS

ATTACKER = "mallory-secret-012345"
"""API key of the attacker."""

RAMP = 0.25
"""Fraction of an attack's duration over which its connections are opened."""

_LONGEST = 5.0
"""Seconds for which an attack continues until each connection has sent its opening."""

_MIB = 2**20
_HOST = b" HTTP/1.1\r\nHost: localhost\r\n"
_KEY = b"Authorization: Bearer " + ATTACKER.encode() + b"\r\n"
_FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_ALIVE = b"GET /livez" + _HOST
_PART = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="x"\r\n'


@dataclass(frozen=True)
class Attack:
    """Data sent on each connection; a connection that ends is opened again.

    Attributes:
        opening: sent first.
        more: sent repeatedly after it; if empty, `opening` is repeated after each response.
        pause: seconds between repetitions and before a connection is opened again.
        connections: number of connections.
        reads: whether responses are read.
    """

    opening: bytes
    more: bytes = b""
    pause: float = 0.0
    connections: int = 8
    reads: bool = True


def upload(data: bytes, query: bytes = b"") -> bytes:
    """A complete upload of a file."""
    body = _PART % b"file" + b"\r\n" + data + b"\r\n--b--\r\n"
    return _post(b"/v1/detections" + query, len(body)) + body


def get(path: str) -> bytes:
    """A request by the attacker that closes the connection."""
    return b"GET " + path.encode() + _HOST + _KEY + b"Connection: close\r\n\r\n"


def _post(path: bytes, length: int) -> bytes:
    return b"POST " + path + _HOST + _KEY + _FORM + b"Content-Length: %d\r\n\r\n" % length


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _open_form(more: bytes, path: bytes = b"/v1/detections", part: bytes = b"file") -> Attack:
    """A form whose only file part continues with `more`."""
    return Attack(_post(path, 50 * _MIB) + _PART % part + b"\r\n", more)


def _batch() -> bytes:
    part = _PART % b"files" + b"\r\n" + bytes(_MIB - 1000) + b"\r\n"
    return _post(b"/v1/detections/batch", 64 * _MIB) + 63 * part


PROTOCOL: dict[str, Callable[[], Attack]] = {
    "long request line": lambda: Attack(b"GET /", b"a" * 65536),
    "many header fields": lambda: Attack(_ALIVE, b"a:b\r\n" * 10_000),
    "endless header field": lambda: Attack(_ALIVE + b"x: ", b"y" * 65536),
    "half heads": lambda: Attack(_ALIVE + b"x: " + b"y" * 60_000, b"y", 1.0, 190),
    "idle connections": lambda: Attack(b"G", b"", 0, 400),
    "random bytes": lambda: Attack(b"\x16\x03\x01\0\xff" * 100, b"\0" * 1000),
    "many trailers": lambda: Attack(_ALIVE + _CHUNKED + b"0\r\n", b"a:b\r\n" * 10_000),
    "long trailers": lambda: Attack(_ALIVE + _CHUNKED + b"0\r\nx: ", b"y" * 65536),
    "chunk extensions": lambda: Attack(
        b"POST /v1/detections" + _HOST + _KEY + _FORM + _CHUNKED + b"1;", b"x" * 65536
    ),
    "pipeline": lambda: Attack((_ALIVE + b"\r\n") * 5000),
    "pipeline of bodies": lambda: Attack(
        (b"POST /v1/detections" + _HOST + b"Content-Length: 60000\r\n\r\n" + bytes(60_000)) * 20
    ),
    "refused bodies": lambda: Attack(
        b"POST /v1/detections" + _HOST + _FORM + b"Content-Length: 99999999999\r\n\r\n",
        bytes(65536),
        connections=183,
    ),
    "refused bodies, slowly": lambda: Attack(
        b"POST /v1/detections" + _HOST + _FORM + b"Content-Length: 40000000\r\n\r\n",
        b"x",
        0.1,
        190,
    ),
    "responses not read": lambda: Attack(
        b"GET /swagger-ui/swagger-ui-bundle.js" + _HOST + b"\r\n", b"", 0, 150, reads=False
    ),
    "wrong keys": lambda: Attack(
        b"GET /v1/detections" + _HOST + b"Authorization: Bearer " + b"x" * 60_000 + b"\r\n\r\n"
    ),
    "half uploads": lambda: Attack(
        _post(b"/v1/detections", 900_000) + _PART % b"file" + b"\r\n" + bytes(800_000),
        b"x",
        0.5,
        100,
    ),
    "half large uploads": lambda: Attack(
        _post(b"/v1/detections", 50 * _MIB) + _PART % b"file" + b"\r\n" + bytes(8 * _MIB),
        bytes(1000),
        0.5,
        60,
    ),
    "half batches": lambda: Attack(_batch(), b"x", 0.5, 8),
    "bodies that never come": lambda: Attack(_post(b"/v1/detections", 1000), b"x", 5.0, 190),
    "endless chunks": lambda: Attack(
        b"POST /v1/detections" + _HOST + _KEY + _FORM + _CHUNKED
        + _chunk(_PART % b"file" + b"\r\n"),
        _chunk(bytes(65536)),
    ),
    "chunks of one byte": lambda: Attack(
        b"POST /v1/detections" + _HOST + _KEY + _FORM + _CHUNKED
        + _chunk(_PART % b"file" + b"\r\n"),
        _chunk(b"x") * 10_000,
    ),
    "almost boundaries": lambda: _open_form(b"\r\n--b?" * 10_000),
    "line breaks": lambda: _open_form(b"\r" * 65536),
    "padded boundary": lambda: Attack(
        _post(b"/v1/detections", 50 * _MIB) + _PART % b"file" + b"\r\n\r\n--b", b" " * 65536
    ),
    "many parts": lambda: _open_form((b"\r\n" + _PART % b"files" + b"\r\n") * 1000,
                                     b"/v1/detections/batch", b"files"),
    "many part headers": lambda: Attack(
        _post(b"/v1/detections", 50 * _MIB) + _PART % b"file", b"a:b\r\n" * 10_000
    ),
    "long part header": lambda: Attack(
        _post(b"/v1/detections", 50 * _MIB) + _PART % b"file" + b"x: ", b"y" * 65536
    ),
    "long text": lambda: Attack(
        _post(b"/v1/detections", 50 * _MIB)
        + b'--b\r\nContent-Disposition: form-data; name="ref_id"\r\n\r\n',
        b"y" * 65536,
    ),
    "long query": lambda: Attack(
        b"GET /v1/detections?" + b"a&" * 4_000 + _HOST + _KEY + b"\r\n"
    ),
    "many ids": lambda: Attack(
        b"GET /v1/detections?ids=" + b"a," * 4_000 + _HOST + _KEY + b"\r\n"
    ),
    "held waits": lambda: Attack(
        upload(bytes(100)).replace(_KEY, _KEY + b"Prefer: wait=60\r\n"), b"", 5.0, 190
    ),
}  # fmt: skip
"""Attacks on parts of the protocol, with and without a key."""

PICTURES: dict[str, Callable[[], bytes]] = BOMBS
"""Decompression bombs and other expensive files; those of a format are uploaded together."""


def attack_of(name: str) -> list[Attack]:
    """What each connection of the attack with this name does."""
    if name in PROTOCOL:
        attack = PROTOCOL[name]()
        return [attack] * attack.connections
    uploads = [
        Attack(upload(make()))
        for picture, make in PICTURES.items()
        if picture.partition(" ")[0] == name
    ]
    return uploads * -(-Attack.connections // len(uploads))


def names() -> list[str]:
    """The names of all attacks: parts of the protocol, and formats of pictures."""
    return [*PROTOCOL, *dict.fromkeys(picture.partition(" ")[0] for picture in PICTURES)]


async def carry_out(attacks: Sequence[Attack], port: int, seconds: float) -> None:
    """Attack until the next line, after `seconds` and once each connection has sent its opening."""
    sent = [asyncio.Event() for _ in attacks]

    async def one(number: int) -> None:
        attack = attacks[number]
        # Not in a burst: what matters is the number of open connections.
        await asyncio.sleep(seconds * RAMP * number / len(attacks))
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await _connection(attack, port, sent[number])
            sent[number].set()  # the API did not want all of it
            await asyncio.sleep(max(0.05, attack.pause))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(len(attacks))]
        await asyncio.sleep(seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST):
                for event in sent:
                    await event.wait()
        print("full", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for task in tasks:
            task.cancel()


async def _connection(attack: Attack, port: int, sent: asyncio.Event) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            writer.write(attack.opening)
            await writer.drain()
            sent.set()
            if attack.more:
                await _repeat(attack, reader, writer)
            elif not attack.reads:
                await asyncio.Event().wait()
            elif not await reader.read(65536):
                return
            await asyncio.sleep(attack.pause)
    finally:
        writer.transport.abort()


async def _repeat(
    attack: Attack, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send `more` until the connection ends."""

    async def write() -> None:
        while True:
            writer.write(attack.more)
            await writer.drain()
            await asyncio.sleep(attack.pause)

    writing = asyncio.create_task(write())
    try:
        while await reader.read(65536):
            pass
    finally:
        writing.cancel()
        await asyncio.wait([writing])


def main(port: str, seconds: str) -> None:
    """Carry out the requested attacks, one after the other."""
    while line := sys.stdin.readline():
        attacks = attack_of(line.strip())
        print("ready", flush=True)
        asyncio.run(carry_out(attacks, int(port), float(seconds)))
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
