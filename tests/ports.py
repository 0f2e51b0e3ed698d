"""Free ports for the servers that tests start."""

import contextlib
import os
import random
import socket

_WORKERS = 4
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_own = range(20_000, 32_000, 4)[_worker::_WORKERS]  # processes that test side by side share none
_blocks = iter(random.sample(_own, len(_own)))


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, at most four; each is given out once.

    They lie below the ports that systems give to outgoing connections: no connection can take
    one between this look and the start of a server.
    """
    for first in _blocks:
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(first, first + count):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no ports left")


def free_port() -> int:
    return free_ports(1)
