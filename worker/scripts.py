"""What Redis does with RQ's jobs in one step, in Lua, for this worker.

Each script makes the changes that RQ's own classes would make job by job, and makes them only if
the job is still this worker's. So a process that was stopped for long, or a client that sends a
command again because its answer was lost, does nothing twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from redis.commands.core import Script
from rq.defaults import RQ_KEY_PREFIX
from rq.executions import ExecutionRegistry
from rq.job import Job, JobStatus
from rq.results import Result
from rq.worker import WorkerStatus

from app.contract import scripts

MOST_DEATHS = 5
"""So many workers may die with a job in hand; one more, and it is not tried again."""

_LUA = Path(__file__).with_name("lua")


def _load(*names: str) -> Script:
    return scripts.load(
        _LUA,
        "names",
        *names,
        JOB=Job.key_for(""),
        RESULTS=cast(str, Result.get_key("")),  # type: ignore[no-untyped-call]
        EXECUTIONS=ExecutionRegistry.key_template.format(""),
        EXECUTION=f"{RQ_KEY_PREFIX}:execution:",
        QUEUED=JobStatus.QUEUED.value,
        STARTED=JobStatus.STARTED.value,
        FINISHED=JobStatus.FINISHED.value,
        SUCCESSFUL=Result.Type.SUCCESSFUL.value,
        BUSY=WorkerStatus.BUSY.value,
        MOST_DEATHS=MOST_DEATHS,
        TAKE_REMEMBERED=600,  # s
    )


TAKE = _load("hold", "take")
KEEP = _load("hold", "keep")
FINISH = _load("finish")
RETURN = _load("place", "return")
PUT_BACK = _load("place", "put_back")
