"""Lua scripts that change RQ's jobs atomically.

Each script makes the changes that RQ's classes would make job by job, but only if the job is still
this worker's. So neither a process that was paused for long nor a client that repeats a command
after a lost reply does anything twice.
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

MAX_DEATHS = 5
"""Number of workers that may die while processing a job; after one more it fails."""

_LUA = Path(__file__).with_name("lua")


def _load(*names: str) -> Script:
    return scripts.load(
        _LUA,
        "keys",
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
        MAX_DEATHS=MAX_DEATHS,
        TAKE_REMEMBERED=600,  # s
    )


TAKE = _load("execution", "take")
HEARTBEAT = _load("execution", "heartbeat")
FINISH = _load("finish")
REINSERT = _load("insert", "reinsert")
PUT_BACK = _load("insert", "put_back")
