"""Pipeline with three concurrent stages: fetch and decode → forward → conclude and deliver.

The stages are connected by bounded buffers: bytes fetched, pixels being processed, crops waiting
for the device. This keeps the device busy and bounds memory independently of the number and size
of pictures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

import structlog
from redis.exceptions import RedisError

from app.contract.schemas import Detection
from model.canary import ModelSickError
from model.engine import DeviceError, ModelOutputError
from worker import metrics, spans
from worker.budget import Budget
from worker.heartbeat import StallTimer
from worker.policy import BatchPolicy, Share
from worker.processing import DecodedPicture, Outcome, Processor

_FETCHED_BYTES = 128 * 2**20
"""Limit of bytes that are fetched and not decoded yet; fetching pauses at it."""
_PIXELS = 32_000_000
"""Limit of pixels being decoded or concluded; these steps pause at it."""
_TASK_PIXELS = 1_000_000
"""Pixels that a thread decodes or concludes per task; smaller tasks cost more than a thumbnail."""
_LAST_DELIVERY = 3.0  # s; for a delivery in progress when `close` times out
_IDLE_CHECK = 300.0  # s since the last check of the model until it is checked while idle
_NONFINITE_LIMIT = 3
"""Consecutive pictures without finite outputs after which the model or device counts as sick."""
_WAITING_BATCHES = 4
"""Limit of full batches of crops that wait for the device; decoding pauses at it."""

T = TypeVar("T")
Result = Outcome | Exception | None
"""None if there was nothing to do: the detection was finished, deleted or expired before."""

log = structlog.get_logger()


@dataclass
class _InProgress:
    """A decoded picture until the last of its crops is computed."""

    ready: DecodedPicture
    missing: int  # remaining units, see `DecodedPicture.units`


class Pipeline:
    """Processes detections by id and delivers their results.

    Args:
        processor: processes pictures and runs the forward pass.
        max_batch: maximum number of crops in a forward pass.
        window: seconds to wait for a full batch, see `BatchPolicy`.
        threads: number of threads that decode, and of threads that conclude.
        deliver: called in one thread with all available results by id.
        give_up: called after a fatal error of the device, the model or delivery. Pictures that are
            not computed by then are never delivered.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        max_batch: int,
        window: float,
        threads: int,
        deliver: Callable[[dict[str, Result]], None],
        give_up: Callable[[Exception], None],
    ) -> None:
        self._processor = processor
        self._deliver = deliver
        self._give_up = give_up
        self._checked = time.monotonic()  # last check of the model; used by the forward thread
        self._policy: BatchPolicy[str] = BatchPolicy(max_batch, window)
        self._in_progress: dict[str, _InProgress] = {}
        self._started: set[str] = set()  # forward pass started, result not delivered
        self._stall = StallTimer()
        self._unconfirmed: dict[str, Result] = {}  # failures due to either the model or the picture
        self._nonfinite: set[str] = set()  # consecutive pictures without finite outputs
        self._arrival = threading.Condition()  # guards the six above and the two below
        self._draining = False
        self._closing = False
        self._bytes = Budget(_FETCHED_BYTES)
        self._pixels = Budget(_PIXELS)
        self._crops = Budget(_WAITING_BATCHES * max_batch)
        self._names: SimpleQueue[Sequence[str] | None] = SimpleQueue()
        self._results: SimpleQueue[dict[str, Result] | None] = SimpleQueue()
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._encoders = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        self._fetching = _start("fetch", self._fetch_all)
        self._computing = _start("forward", self._forward_all)
        self._delivering = _start("deliver", self._deliver_all)

    def feed(self, names: Sequence[str]) -> None:
        """Process detections; each is delivered once."""
        self._names.put(names)

    def stalled(self) -> float:
        """Seconds that crops have waited since a forward pass last succeeded."""
        with self._arrival:
            return self._stall.stalled(time.monotonic())

    def drain(self) -> set[str]:
        """Drop all pictures whose forward pass has not started.

        Returns:
            The ids of the others. Results of dropped pictures may still be delivered.
        """
        with self._arrival:
            self._draining = True
            self._policy.drain()
            for name in self._in_progress.keys() - self._started:
                self._policy.discard(name)
                del self._in_progress[name]
            self._arrival.notify()
            started = set(self._started)
        self._lift()
        return started

    def close(self, timeout: float | None = None) -> bool:
        """Deliver everything that was fed and not dropped, then end all threads.

        Returns:
            False after `timeout` seconds: threads are still running, but deliver nothing more.
        """
        closing = _start("close", self._close)
        closing.join(timeout)
        if not closing.is_alive():
            return True
        self._results.put(None)
        self._delivering.join(_LAST_DELIVERY)
        return False

    def _close(self) -> None:
        self._names.put(None)
        self._fetching.join()
        self._decoders.shutdown()
        with self._arrival:
            self._closing = True
            self._arrival.notify()
        self._computing.join()
        self._encoders.shutdown()
        if self._unconfirmed:
            try:
                self._check()
            except Exception as error:  # the device or a bug
                self._abort(error)
        self._results.put(None)
        self._delivering.join()

    # -- fetch and decode ----------------------------------------------------------------------

    def _fetch_all(self) -> None:
        for names in iter(self._names.get, None):
            if not self._draining:
                self._fetch(names)

    def _fetch(self, names: Sequence[str]) -> None:
        store = self._processor.store
        try:
            with spans.stage("fetch", names):
                records = store.start(names)
        except Exception as error:
            if len(names) == 1 or isinstance(error, RedisError):
                self._results.put(dict.fromkeys(names, error))
                return
            for name in names:  # an unreadable record must not fail the others
                self._fetch([name])
            return
        for record in records.values():
            spans.waited(record)
        if len(records) < len(names):
            self._results.put({name: None for name in names if name not in records})
        for part in _parts(records.values(), lambda r: r.image.bytes, _FETCHED_BYTES // 2):
            self._fetch_pictures(part)

    def _fetch_pictures(self, records: list[Detection]) -> None:
        size = sum(record.image.bytes for record in records)
        names = [record.id for record in records]
        self._bytes.acquire(size)
        try:
            with spans.stage("fetch", names):
                pictures = self._processor.store.get_images(names)
        except Exception as error:
            self._bytes.release(size)
            self._results.put(dict.fromkeys(names, error))
            return
        fetched = zip(records, pictures, strict=True)
        for part in _parts(fetched, lambda pair: _pixels(pair[0]), _TASK_PIXELS):
            self._decoders.submit(self._decode, part)

    def _decode(self, fetched: list[tuple[Detection, bytes | None]]) -> None:
        ready: dict[str, DecodedPicture] = {}
        ended: dict[str, Result] = {}
        with self._pixels.holding(sum(_pixels(record) for record, _ in fetched)):
            for record, picture in fetched:
                if self._draining:
                    return
                result = self._processor.decode(record, picture)
                if isinstance(result, DecodedPicture):
                    ready[record.id] = result
                else:
                    ended[record.id] = result
        self._bytes.release(sum(record.image.bytes for record, _ in fetched))
        if ended:
            self._results.put(ended)
        if not ready:
            return
        self._crops.acquire(sum(decoded.units for decoded in ready.values()))
        with self._arrival:
            if self._draining:
                return
            now = time.monotonic()
            for name, decoded in ready.items():
                self._in_progress[name] = _InProgress(decoded, decoded.units)
                self._policy.add(name, decoded.units, now)
            self._stall.work_arrived(now)
            self._arrival.notify()

    # -- forward -------------------------------------------------------------------------------

    def _forward_all(self) -> None:
        try:
            while (shares := self._next_batch()) is not None:
                if not shares:
                    self._check()
                    continue
                self._compute(shares)
                with self._arrival:
                    if not self._in_progress:
                        self._stall.idle()
        except Exception as error:  # the device or a bug; not caused by a picture
            self._abort(error)

    def _next_batch(self) -> list[Share[str]] | None:
        """Wait for a batch; returns [] if the model must be checked, None at the end."""
        with self._arrival:
            while not self._unconfirmed:
                now = time.monotonic()
                due = self._policy.due_in(now)
                if self._closing and due is None:
                    return None
                # While closing nothing more arrives, so waiting crops are computed at once.
                if self._closing or due == 0:
                    break
                timeout = max(0.0, self._checked + _IDLE_CHECK - now) if due is None else due
                if not self._arrival.wait(timeout) and due is None:
                    return []
            else:
                return []
            shares, reason = self._policy.take()
            self._started.update(share.key for share in shares)
        metrics.BATCHES.labels(reason).inc()
        return shares

    def _check(self) -> None:
        """Check the model; if it is healthy, the unconfirmed failures are due to the pictures.

        If it is sick, nothing is delivered and other workers process the pictures.

        Raises:
            ModelSickError: if the model is sick.
            DeviceError: if the device is unusable.
        """
        with self._arrival:
            unconfirmed, self._unconfirmed = self._unconfirmed, {}
        self._processor.check()
        self._checked = time.monotonic()
        if not unconfirmed:
            return
        self._results.put(unconfirmed)
        if len(self._nonfinite) >= _NONFINITE_LIMIT:
            raise ModelSickError(
                f"the outputs of {len(self._nonfinite)} consecutive pictures are not finite"
            )

    def _compute(self, shares: list[Share[str]]) -> None:
        """Run a batch; on an error, halve it until the picture that causes it is alone."""
        items = [self._in_progress[share.key] for share in shares]
        work = [
            (item.ready, share.start, share.stop) for item, share in zip(items, shares, strict=True)
        ]
        try:
            with spans.batch([share.key for share in shares]):
                outputs, seconds = self._processor.forward(work)
                crops = sum(len(output.logits) for output in outputs)
                log.info("batch", pictures=len(shares), crops=crops, seconds=round(seconds, 4))
        except DeviceError:
            raise
        except Exception as error:
            if len(shares) == 1:
                self._fail(shares[0].key, error)
                return
            log.warning("batch_halved", pictures=len(shares), error=repr(error))
            half = len(shares) // 2
            self._compute(shares[:half])
            self._compute(shares[half:])
            return
        metrics.BATCH_PICTURES.observe(len(shares))
        computed: list[tuple[str, _InProgress]] = []
        for item, share, output in zip(items, shares, outputs, strict=True):
            item.ready.parts.append(output)
            item.ready.forward += seconds
            item.missing -= share.stop - share.start
            if item.missing == 0:
                item.ready.drop_pixels()
                computed.append((share.key, item))
        self._crops.release(sum(share.stop - share.start for share in shares))
        with self._arrival:
            for name, _ in computed:
                del self._in_progress[name]
            self._stall.succeeded(time.monotonic())
        for part in _parts(computed, lambda pair: _pixels(pair[1].ready.detection), _TASK_PIXELS):
            self._encoders.submit(self._conclude, part)

    def _fail(self, name: str, error: Exception) -> None:
        """Drop a picture with its remaining crops; its failure is unconfirmed."""
        with self._arrival:
            self._policy.discard(name)
            item = self._in_progress.pop(name)
            self._unconfirmed[name] = error
        self._crops.release(item.missing)

    # -- conclude and deliver ------------------------------------------------------------------

    def _conclude(self, computed: list[tuple[str, _InProgress]]) -> None:
        results: dict[str, Result] = {}
        with self._pixels.holding(sum(_pixels(item.ready.detection) for _, item in computed)):
            for name, item in computed:
                with spans.stage("encode", [name]):
                    results[name] = self._processor.conclude(item.ready)
        nonfinite = {
            name: end for name, end in results.items() if isinstance(end, ModelOutputError)
        }
        with self._arrival:
            if len(nonfinite) < len(results):
                self._nonfinite.clear()
            self._nonfinite |= nonfinite.keys()
            self._unconfirmed |= nonfinite
            self._arrival.notify()
        if good := {name: end for name, end in results.items() if name not in nonfinite}:
            self._results.put(good)

    def _deliver_all(self) -> None:
        closing = False
        while not closing:
            found = [self._results.get()]
            while not self._results.empty():
                found.append(self._results.get())
            closing = None in found
            results = {name: end for part in found if part for name, end in part.items()}
            if results:
                try:
                    self._deliver(results)
                except Exception as error:  # Redis is down for long; other workers repeat these
                    self._abort(error)
                    return
                with self._arrival:
                    self._started.difference_update(results)

    def _abort(self, error: Exception) -> None:
        self._lift()
        self._give_up(error)

    def _lift(self) -> None:
        self._crops.lift()
        self._bytes.lift()


def _parts(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Split items into parts of total size at most `limit`; larger items are alone."""
    part: list[T] = []
    total = 0
    for item in items:
        if part and total + size(item) > limit:
            yield part
            part, total = [], 0
        part.append(item)
        total += size(item)
    if part:
        yield part


def _pixels(record: Detection) -> int:
    return record.image.width * record.image.height * record.view.frames


def _start(name: str, target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread
