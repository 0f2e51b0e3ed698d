"""What runs in the actors of `gamma scan`: one partition after the other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from app.command.scan.places import read_picture
from app.command.scan.plan import Plan, part
from app.command.scan.sources import shown
from app.command.scan.table import encode
from app.contract.settings import Settings

_DEATHS = 2
"""Processes that may end while a picture is alone in them, before it gets no further attempt."""
_REPORT = 1.0  # s between two reports

Row = dict[str, Any]  # as in `worker.scoring`
Report = Callable[[int, int, int], None]
"""Takes a partition, and how many of its pictures are finished and failed."""


class Scanner:
    """Scores partitions and writes their results."""

    def __init__(self, plan: Plan, settings: dict[str, Any], threads: int, report: Report) -> None:
        """Keep the arguments; the model is loaded with the first partition.

        Args:
            plan: The scan.
            settings: The settings of the model and of decoding.
            threads: Number of threads that compute, on a CPU.
            report: Called now and then.
        """
        self._plan = plan
        self._settings = Settings.model_construct(**settings)
        self._threads = threads
        self._report = report
        self._scorer: Any = None  # `worker.scoring.Scorer`
        self._opened = ExitStack()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Scan partitions; an error is returned, because Ray would repeat what raises one."""
        ends = [self._attempt(int(number)) for number in batch["partition"]]
        return {
            "partition": list(batch["partition"]),
            "failed": [failed for failed, _ in ends],
            "error": [error for _, error in ends],
        }

    def _attempt(self, partition: int) -> tuple[int, str]:
        """Scan a partition; returns how many of its pictures failed, or the error of all."""
        try:
            return self._scan(partition), ""
        except Exception as error:  # the model, the device, the target, or a bug
            return 0, f"{type(error).__name__}: {error}"

    def _scan(self, partition: int) -> int:
        plan = self._plan
        if plan.target.has(part(partition)):  # an actor was killed after it had written it
            return 0
        paths = plan.paths(partition)
        if self._scorer is None:
            self._scorer = self._load()
        rows = self._score(partition, paths, self._scorer)
        model = {
            "model_name": plan.manifest.model.name,
            "model_version": plan.manifest.model.version,
        }
        named = [
            {"path": shown(path), **row, **model} for path, row in zip(paths, rows, strict=True)
        ]
        plan.target.write(part(partition), encode(named))
        plan.target.delete(plan.attempts(partition))
        failed = sum("error_code" in row for row in rows)
        self._report(partition, len(rows), failed)
        return failed

    def _load(self) -> Any:
        import torch

        from pictures.decoders import Decoders
        from pictures.findings import View
        from worker.main import load_detector
        from worker.scoring import Scorer

        torch.set_num_threads(self._threads)
        settings = self._settings
        detector = load_detector(settings)
        detector.warm_up()
        wanted = self._plan.manifest.model
        if detector.info.digest != wanted.digest:
            raise ValueError(f"this node has another model than {wanted.name} {wanted.version}")
        most = int(settings.max_upload)
        decoders = Decoders(settings.decode_threads, max_pixels=settings.max_pixels)
        self._opened.callback(decoders.close)
        scorer = Scorer(
            detector,
            decoders,
            lambda path: read_picture(path, most),
            view=View(self._plan.manifest.view),
            max_batch=settings.max_batch,
            max_pixels=settings.max_pixels,
            threads=settings.decode_threads,
        )
        self._opened.callback(scorer.close)
        return scorer

    def close(self) -> None:
        """End threads and decoders; needed only where the process goes on."""
        self._opened.close()

    def _score(self, partition: int, paths: list[bytes], scorer: Any) -> list[Row]:
        """Score pictures together, or one by one if an earlier attempt ended the process."""
        attempts = _Attempts(self._plan, partition)
        last = 0.0

        def report(done: int, failed: int) -> None:
            nonlocal last
            if time.monotonic() - last >= _REPORT:
                last = time.monotonic()
                self._report(partition, done, failed)

        if attempts.first:
            attempts.begin()
            whole: list[Row] = scorer.score(paths, report)
            return whole
        rows: list[Row] = []
        for index, path in enumerate(paths):
            rows.append(self._alone(attempts, index, path, scorer))
            report(index + 1, sum("error_code" in row for row in rows))
        return rows

    def _alone(self, attempts: _Attempts, index: int, path: bytes, scorer: Any) -> Row:
        from app.contract.details import detection_error
        from app.contract.schemas import ErrorCode
        from worker.scoring import unscored

        if attempts.deaths.get(str(index), 0) >= _DEATHS:
            error = detection_error(ErrorCode.PROCESSING_FAILED)
            return unscored(error.code.value, error.detail)
        attempts.begin(index)
        row: Row = scorer.score([path])[0]
        return row


@dataclass
class _Attempts:
    """The attempts at a partition, kept in the target, so that they outlive the process."""

    plan: Plan
    partition: int
    first: bool = field(init=False)
    deaths: dict[str, int] = field(init=False)
    """For each picture, the processes that ended while it was alone in them."""

    def __post_init__(self) -> None:
        data = self.plan.target.read(self.plan.attempts(self.partition))
        found = {"deaths": {}, "alone": None} if data is None else json.loads(data)
        self.first = data is None
        self.deaths = found["deaths"]
        if found["alone"] is not None:
            name = str(found["alone"])
            self.deaths[name] = self.deaths.get(name, 0) + 1

    def begin(self, alone: int | None = None) -> None:
        """Note that an attempt begins at all pictures, or at one of them."""
        noted = json.dumps({"deaths": self.deaths, "alone": alone}).encode()
        self.plan.target.write(self.plan.attempts(self.partition), noted)
