"""Free ports for the servers that tests start."""

import contextlib
import os
import random
import socket

_WORKERS = 4
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_own = range(20_000, 32_000, 4)[_worker::_WORKERS]  # disjoint among concurrent test processes
_blocks = iter(random.sample(_own, len(_own)))


def free_ports(count: int) -> int:
    """Return the first of `count` (at most four) consecutive free ports; each is used once.

    They are below the ephemeral range, so no outgoing connection takes one before a server starts.
    """
    for first in _blocks:
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(first, first + count):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no ports left")


def free_port() -> int:
    return free_ports(1)
