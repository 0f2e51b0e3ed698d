"""`gamma serve`: Redis, workers, webhooks and the API as child processes, in order."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import structlog

from app.command.embedded import PrivateRedis, PrivateRedisError, private_redis
from app.command.processes import start, stop
from app.contract.ports import PortError, ask, check_port
from app.contract.settings import Settings

_READY_TIMEOUT = 600.0  # s; a large model may have to be downloaded first
_CHECK_INTERVAL = 0.2  # s
_NVIDIA_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # Linux; WSL
_COUNT_DEVICES = "import torch; print(torch.cuda.device_count())"
_API_DRAIN = 75.0  # s; longer than the longest `Prefer: wait`
_WEBHOOKS_DRAIN = 90.0  # s; longer than the longest delivery
_RESTART_DELAYS = (1.0, 2.0, 5.0, 10.0, 30.0)  # s; the last one repeats
_STABLE_AFTER = 60.0  # s; a child that ran this long restarts with the first delay

log = structlog.get_logger()


class StartError(RuntimeError):
    """A process ended before the service was ready."""


@dataclass
class Child:
    """A supervised process.

    Attributes:
        drain: time to finish its work after SIGTERM, in seconds.
    """

    name: str
    arguments: list[str]
    environment: dict[str, str]
    drain: float
    process: subprocess.Popen[bytes] = field(init=False)
    started: float = field(init=False)
    failures: int = 0
    restart_at: float | None = None

    def start(self) -> None:
        """Start or restart the process."""
        command = [sys.executable, "-m", "app", *self.arguments]
        self.process = start(command, self.environment)
        self.started = time.monotonic()
        self.restart_at = None

    def restart_delay(self) -> float:
        """Seconds to wait before the next start; grows with each failure in a row."""
        if time.monotonic() - self.started > _STABLE_AFTER:
            self.failures = 0
        delay = _RESTART_DELAYS[min(self.failures, len(_RESTART_DELAYS) - 1)]
        self.failures += 1
        return delay


def serve(settings: Settings, environment: dict[str, str], announce: Callable[[str], None]) -> None:
    """Run the whole service until SIGINT or SIGTERM; a second signal kills it.

    Args:
        settings: settings of this process.
        environment: `GAMMA_*` variables that give the children the same settings.
        announce: called with the URL of the page when the service is ready.

    Raises:
        PrivateRedisError: If the private Redis cannot be started or restarted.
        PortError: If a port is in use.
        StartError: If a process ends before the service is ready.
    """
    stopping = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_signals(stopping))
        redis = None
        if settings.redis_url is None:
            url, redis = stack.enter_context(
                private_redis(settings.data_dir, int(settings.redis_maxmemory))
            )
            environment = {**environment, "GAMMA_REDIS_URL": url}
        workers = _workers(settings, environment)
        webhooks = _webhooks(settings, environment, settings.metrics_port + 1 + len(workers))
        api = Child("api", ["api"], environment, _API_DRAIN)
        children = [*workers, *webhooks, api]
        _check_ports(settings, len(children))
        for child in children:
            child.start()
            stack.callback(_stop, child)  # last in, first out: API first, Redis last
        try:
            if _wait_until_ready(settings, children, redis, stopping):
                announce(_page_url(settings))
                _watch(children, redis, stopping)
        except PrivateRedisError:
            for child in children:
                child.process.kill()  # on SIGTERM they would wait for Redis
            raise
        log.info("stopping", hint="a second signal kills the processes")


def _check_ports(settings: Settings, processes: int) -> None:
    """Check all ports before anything is loaded.

    Raises:
        PortError: If a port is in use, or two processes would have the same one.
    """
    above = settings.port - settings.metrics_port
    if 0 <= above < processes:
        raise PortError(
            f"port {settings.port} is both GAMMA_PORT and GAMMA_METRICS_PORT"
            f"{f' + {above}' if above else ''}",
            f"choose another; metrics use {processes} ports, starting with GAMMA_METRICS_PORT",
            taken=False,
        )
    check_port(settings.host, settings.port, "GAMMA_PORT")
    for above in range(processes):
        check_port(settings.metrics_host, settings.metrics_port, "GAMMA_METRICS_PORT", above)


def _workers(settings: Settings, environment: dict[str, str]) -> list[Child]:
    """One worker per device, with metrics on the ports above the API's."""
    children = []
    for number, device in enumerate(devices(settings.device)):
        own = {
            "GAMMA_DEVICE": device,
            "GAMMA_METRICS_PORT": str(settings.metrics_port + 1 + number),
        }
        name = f"worker-{number}" if number else "worker"
        children.append(Child(name, ["worker"], {**environment, **own}, settings.stop_timeout))
    return children


def _webhooks(settings: Settings, environment: dict[str, str], metrics_port: int) -> list[Child]:
    """One delivery process, if webhooks are on."""
    if not settings.may_sign_webhooks:
        return []
    own = {"GAMMA_METRICS_PORT": str(metrics_port)}
    return [Child("webhooks", ["webhooks"], {**environment, **own}, _WEBHOOKS_DRAIN)]


def devices(setting: str) -> list[str]:
    """The devices that a setting selects; `auto` and `cuda` select each visible CUDA device.

    torch, which knows the visible devices, is loaded in a child process and only if there is an
    NVIDIA driver, because it takes seconds to load.
    """
    if setting not in ("auto", "cuda") or not has_nvidia_driver():
        return [setting]
    found = subprocess.run(  # noqa: S603 - constant arguments
        [sys.executable, "-c", _COUNT_DEVICES], capture_output=True, text=True, check=False
    )
    count = int(found.stdout) if found.returncode == 0 else 0
    return [f"cuda:{number}" for number in range(count)] or [setting]


def has_nvidia_driver() -> bool:
    """Whether this machine or container has an NVIDIA driver."""
    return any(path.exists() for path in _NVIDIA_DRIVERS)


@contextlib.contextmanager
def _signals(stopping: threading.Event) -> Iterator[None]:
    def request_stop(number: int, _frame: object) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    before = {n: signal.signal(n, request_stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(child: Child) -> None:
    try:
        stop(child.process, child.drain)
    except KeyboardInterrupt:
        log.warning("killed", process=child.name)
        child.process.kill()
        child.process.wait()
    log.info("stopped", process=child.name, exit_code=child.process.returncode)


def _page_url(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def _wait_until_ready(
    settings: Settings,
    children: list[Child],
    redis: PrivateRedis | None,
    stopping: threading.Event,
) -> bool:
    """Wait for the API to be ready; False if a stop was requested first.

    Raises:
        StartError: If a process ends, or the service is not ready within 10 minutes.
        PrivateRedisError: If the private Redis died and cannot be restarted.
    """
    deadline = time.monotonic() + _READY_TIMEOUT
    while not stopping.wait(_CHECK_INTERVAL):
        _keep_alive(redis)
        for child in children:
            if child.process.poll() is not None:
                raise StartError(
                    f"{child.name} ended during start-up with exit code {child.process.returncode}"
                )
        with contextlib.suppress(OSError):
            status, _ = ask(settings.host, settings.port, "/readyz")
            if status == HTTPStatus.OK:
                return True
        if time.monotonic() > deadline:
            raise StartError(f"not ready after {_READY_TIMEOUT:.0f} s")
    return False


def _watch(children: list[Child], redis: PrivateRedis | None, stopping: threading.Event) -> None:
    """Restart processes that die, until a stop is requested.

    Raises:
        PrivateRedisError: If the private Redis died and cannot be restarted.
    """
    while not stopping.wait(_CHECK_INTERVAL):
        _keep_alive(redis)
        for child in children:
            if child.process.poll() is None:
                continue
            if child.restart_at is None:
                delay = child.restart_delay()
                child.restart_at = time.monotonic() + delay
                log.error(
                    "died", process=child.name, exit_code=child.process.returncode, restart_in=delay
                )
            elif time.monotonic() >= child.restart_at:
                child.start()


def _keep_alive(redis: PrivateRedis | None) -> None:
    """Restart the private Redis if it died.

    Raises:
        PrivateRedisError: If it does not start, or died right after its last start.
    """
    if redis is not None and redis.process.poll() is not None:
        log.error("died", process="redis", exit_code=redis.process.returncode, restart_in=0)
        redis.restart()
