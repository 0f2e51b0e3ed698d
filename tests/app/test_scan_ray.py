"""`gamma scan` on a real Ray, which all tests of this file share."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from app.command.scan import run
from app.command.scan.plan import Plan, prepare
from app.command.scan.run import Resources, ScanError
from app.command.scan.sources import Source
from app.contract.settings import Settings
from tests.conftest import encode, photo
from tests.forks import Forked
from tests.pictures.bombs import BOMBS
from tests.towers import small_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # of its own defaults
]
TIMEOUT = 280  # s
PICTURES = 60
SIZE = 5  # of a partition
ONE, TWO = (Resources(actors=count, cpus=1, gpus=0) for count in (1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scan")


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    model = small_checkpoint(folder / "model")
    return Settings(checkpoint=str(model), device="cpu", decode_threads=1)


@pytest.fixture(scope="module")
def pictures(folder: Path) -> Path:
    """Pictures of which one is broken and one aborts its decoder."""
    source = folder / "in"
    source.mkdir()
    for number in range(PICTURES):
        (source / f"{number:02}.jpg").write_bytes(encode(photo(256, 192, number)))
    (source / "07.jpg").write_bytes(b"broken")
    (source / "58.jpg").write_bytes(BOMBS["jpeg scans"]())
    return source


@pytest.fixture(scope="module", autouse=True)
def running(folder: Path) -> Iterator[None]:
    """Ray on this machine, with cores for two actors."""
    with pytest.MonkeyPatch.context() as patch:
        # Each of Ray's processes imports jsonschema, which with this package takes 2 s longer.
        (folder / "quick").mkdir()
        (folder / "quick/rfc3987_syntax.py").write_text("raise ImportError")
        path = os.pathsep.join(filter(None, [str(folder / "quick"), os.environ.get("PYTHONPATH")]))
        patch.setenv("PYTHONPATH", path)
        for name in (*run._LOCAL_RAY, *run._QUIET_RAY, "RAY_AUTH_TOKEN"):
            patch.setenv(name, "")  # restored at the end
        with run.ray_running(None, 2, "cpu"):
            yield


@pytest.fixture
def plan(pictures: Path, settings: Settings, tmp_path: Path) -> Plan:
    out = str(tmp_path / "out")
    return prepare(Source(str(pictures)), "in", out, run._model(settings), "auto", SIZE)


def wait_until(condition) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finished(plan: Plan) -> set[str]:
    return {name for name in plan.target.names() if name.startswith("part-")}


def check_results(plan: Plan) -> None:
    """Each picture has one row, and only the two bad ones have no score."""
    rows = pq.read_table(plan.url).to_pylist()
    names = [Path(row["path"]).name for row in rows]
    assert sorted(names) == [f"{number:02}.jpg" for number in range(PICTURES)]
    failed = {Path(row["path"]).name: row["error_code"] for row in rows if row["error_code"]}
    assert failed == {"07.jpg": "not_an_image", "58.jpg": "decoding_aborted"}
    assert all(0 < row["ai_probability"] < 1 for row in rows if not row["error_code"])


def ray_processes(name: str = "") -> list[psutil.Process]:
    """Running processes below this one whose command contains a name."""
    found = psutil.Process().children(recursive=True)
    return [one for one in found if name in command_of(one)]


def command_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def test_ray_listens_on_loopback_alone() -> None:
    import ray

    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert ray.get_runtime_context().gcs_address.startswith("127.0.0.1:")
    open_ports = [
        connection.laddr.ip
        for process in ray_processes("ray")
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(open_ports) > 3
    assert {ip.removeprefix("::ffff:") for ip in open_ports} == {"127.0.0.1"}


def kill_one_actor(plan: Plan, killed: list[psutil.Process]) -> None:
    """Kill an actor as soon as another partition is finished."""
    before = len(finished(plan))
    wait_until(lambda: len(finished(plan)) > before)
    killed.append(ray_processes("ray::MapWorker")[0])
    killed[0].kill()


def test_interrupted_command_and_killed_actor_lose_nothing(
    plan: Plan, pictures: Path, settings: Settings, tmp_path: Path
) -> None:
    """One test, because each start of an actor takes seconds."""
    import ray

    address = ray.get_runtime_context().gcs_address
    command = ["scan", str(pictures), "--out", plan.url]
    command += ["--partition-size", str(SIZE), "--checkpoint", str(settings.checkpoint)]
    command += ["--device", "cpu", "--actors", "1", "--address", address]
    log = tmp_path / "log"
    process = Forked(command, os.environ, log, log)
    try:
        wait_until(lambda: finished(plan) or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        assert process.wait(TIMEOUT) == 130
    finally:
        process.kill()
        process.wait()
    assert "interrupted; run the same command to resume" in log.read_text()
    kept = {name: plan.target.read(name) for name in finished(plan)}
    left = plan.unfinished()
    assert kept
    assert len(left) > 2
    assert pq.read_table(plan.url).num_rows == SIZE * len(kept)
    assert plan.target.names("_scan/attempts") == set()

    killed: list[psutil.Process] = []
    thread = threading.Thread(target=kill_one_actor, args=(plan, killed))
    thread.start()
    run.run(plan, left, settings, TWO)
    thread.join()
    assert not killed[0].is_running()
    assert {name: plan.target.read(name) for name in kept} == kept
    assert plan.target.names("_scan/attempts") == set()
    check_results(plan)


def test_error_of_all_pictures_ends_the_scan(plan: Plan, settings: Settings) -> None:
    plan.target.delete("_scan/pictures.parquet")
    with pytest.raises(ScanError, match=r"FileNotFoundError: .*pictures\.parquet"):
        run.run(plan, plan.unfinished(), settings, ONE)
    assert not finished(plan)
