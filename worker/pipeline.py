"""Three overlapping stages: fetch and decode → forward → conclude and deliver.

Threads hand pictures on through bounded places: bytes that are fetched, crops that wait for the
device, pictures that are in hand at all. So the device finds work ready whenever there is any, and
memory depends on these bounds, not on the number or the size of the pictures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

import structlog
from redis.exceptions import RedisError

from app.contract.schemas import Detection
from model.canary import ModelSickError
from model.engine import DeviceError, ModelOutputError
from worker import metrics
from worker.budget import Budget
from worker.heart import Progress
from worker.policy import BatchPolicy, Share
from worker.processing import Outcome, Processor, Ready

_FETCHED_BYTES = 128 * 2**20
"""Pictures that are fetched and not decoded yet: fetching pauses beyond."""
_PIXELS = 32_000_000
"""Pixels that are being decoded or concluded: further pictures of these steps pause beyond."""
_TOGETHER = 1_000_000
"""Pixels that one thread decodes or concludes in one go: handing on costs more than a thumbnail."""
_LAST_DELIVERY = 3.0  # s; for what is being delivered when the time to close is over
_IDLE_CHECK = 300.0  # s; so long after its last check the model is checked, once there is no work
_ODD_LIMIT = 3
"""Pictures in a row of which the model says nothing finite: then it, or its device, is sick."""
_WAITING_BATCHES = 4
"""Full batches of crops that may wait for the device: decoding pauses beyond."""

T = TypeVar("T")
Result = Outcome | Exception | None
"""None: there was nothing to do (finished, deleted or expired before)."""

log = structlog.get_logger()


@dataclass
class _InHand:
    """A decoded picture until the last of its crops is computed."""

    ready: Ready
    missing: int  # units of `Ready.units`


class Pipeline:
    """Takes ids of detections, delivers their results.

    Args:
        processor: does the work on one picture, and the forward pass.
        max_batch: most crops in a forward pass.
        window: see `BatchPolicy`.
        threads: how many pictures are decoded, and how many concluded, at the same time.
        deliver: called in one thread with all results that are there.
        give_up: called when the device, the model or the delivery has failed for good; what is
            not computed by then never will be, and `close` ends the threads without it.
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
        self._checked = time.monotonic()  # the model; by the forward thread
        self._policy: BatchPolicy[str] = BatchPolicy(max_batch, window)
        self._in_hand: dict[str, _InHand] = {}
        self._begun: set[str] = set()  # a crop is computed or being so, and nothing delivered yet
        self._progress = Progress()
        self._doubtful: dict[str, Result] = {}  # failed, by the model's fault or the picture's
        self._odd: set[str] = set()  # without finite outputs, since the last that had some
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
        """Let these detections be done; each is delivered once."""
        self._names.put(names)

    def stalled(self) -> float:
        """Seconds that crops have waited without any forward pass succeeding."""
        with self._arrival:
            return self._progress.stalled(time.monotonic())

    def drain(self) -> set[str]:
        """Drop the pictures of which no crop is computed or being computed; the others go on.

        Returns:
            Those others. Results may still be delivered of what was dropped.
        """
        with self._arrival:
            self._draining = True
            self._policy.drain()
            for name in self._in_hand.keys() - self._begun:
                self._policy.discard(name)
                del self._in_hand[name]
            self._arrival.notify()
            begun = set(self._begun)
        self._lift()
        return begun

    def close(self, timeout: float | None = None) -> bool:
        """Wait until everything that was fed, and not dropped, is delivered; then end all threads.

        Returns:
            False if `timeout` seconds were too short: threads are still at work, but nothing is
            delivered any more.
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
        if self._doubtful:
            self._check_or_abort()
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
            with metrics.stage("fetch"):
                records = store.start(names)
        except Exception as error:
            if len(names) == 1 or isinstance(error, RedisError):
                self._results.put(dict.fromkeys(names, error))
                return
            for name in names:  # one record that cannot be read must not fail the others
                self._fetch([name])
            return
        if len(records) < len(names):
            self._results.put({name: None for name in names if name not in records})
        found = list(records.values())
        for part in _parts(found, [record.image.bytes for record in found], _FETCHED_BYTES // 2):
            self._fetch_pictures(part)

    def _fetch_pictures(self, records: list[Detection]) -> None:
        size = sum(record.image.bytes for record in records)
        self._bytes.acquire(size)
        try:
            with metrics.stage("fetch"):
                pictures = self._processor.store.get_images([record.id for record in records])
        except Exception as error:
            self._bytes.release(size)
            self._results.put({record.id: error for record in records})
            return
        fetched = list(zip(records, pictures, strict=True))
        for part in _parts(fetched, [_pixels(record) for record in records], _TOGETHER):
            self._decoders.submit(self._decode, part)

    def _decode(self, fetched: list[tuple[Detection, bytes | None]]) -> None:
        ready: dict[str, Ready] = {}
        ended: dict[str, Result] = {}
        with self._pixels.holding(sum(_pixels(record) for record, _ in fetched)):
            for record, picture in fetched:
                if self._draining:
                    return
                result = self._processor.decode(record, picture)
                if isinstance(result, Ready):
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
                self._in_hand[name] = _InHand(decoded, decoded.units)
                self._policy.add(name, decoded.units, now)
            self._progress.waits(now)
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
                    if not self._in_hand:
                        self._progress.rests()
        except Exception as error:  # the device, or a fault of ours: not that of a picture
            self._abort(error)

    def _next_batch(self) -> list[Share[str]] | None:
        """Wait for a batch; an empty one if the model is to be checked, None at the end."""
        with self._arrival:
            while not self._doubtful:
                now = time.monotonic()
                due = self._policy.due_in(now)
                if self._closing and due is None:
                    return None
                # Nothing more can arrive while closing: what waits leaves at once.
                if self._closing or due == 0:
                    break
                rest = max(0.0, self._checked + _IDLE_CHECK - now) if due is None else due
                if not self._arrival.wait(rest) and due is None:
                    return []
            else:
                return []
            shares, reason = self._policy.take()
            self._begun.update(share.key for share in shares)
        metrics.BATCHES.labels(reason).inc()
        return shares

    def _check(self) -> None:
        """See whether failures were the model's; if not, they were those of the pictures.

        If the model is sick they stay undelivered, like all that is in hand: others do them.
        """
        with self._arrival:
            doubtful, self._doubtful = self._doubtful, {}
        self._processor.check()
        self._checked = time.monotonic()
        if not doubtful:
            return
        self._results.put(doubtful)
        if len(self._odd) >= _ODD_LIMIT:
            raise ModelSickError(
                f"the outputs of {len(self._odd)} pictures in a row are not finite"
            )

    def _check_or_abort(self) -> None:
        try:
            self._check()
        except Exception as error:  # as in _forward_all
            self._abort(error)

    def _compute(self, shares: list[Share[str]]) -> None:
        """Run a batch; if it raises, halve it until the culprit stands alone."""
        items = [self._in_hand[share.key] for share in shares]
        work = [
            (item.ready, share.start, share.stop) for item, share in zip(items, shares, strict=True)
        ]
        try:
            outputs, seconds = self._processor.forward(work)
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
        crops = sum(len(output.logits) for output in outputs)
        log.info("batch", pictures=len(shares), crops=crops, seconds=round(seconds, 4))
        computed: list[tuple[str, _InHand]] = []
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
                del self._in_hand[name]
            self._progress.succeeded(time.monotonic())
        sizes = [_pixels(item.ready.detection) for _, item in computed]
        for part in _parts(computed, sizes, _TOGETHER):
            self._encoders.submit(self._conclude, part)

    def _fail(self, name: str, error: Exception) -> None:
        """Give up one picture: what is computed of it, and what still waits."""
        with self._arrival:
            self._policy.discard(name)
            item = self._in_hand.pop(name)
            self._doubtful[name] = error
        self._crops.release(item.missing)

    # -- conclude and deliver ------------------------------------------------------------------

    def _conclude(self, computed: list[tuple[str, _InHand]]) -> None:
        results: dict[str, Result] = {}
        with self._pixels.holding(sum(_pixels(item.ready.detection) for _, item in computed)):
            for name, item in computed:
                with metrics.stage("encode"):
                    results[name] = self._processor.conclude(item.ready)
        odd = {name: end for name, end in results.items() if isinstance(end, ModelOutputError)}
        with self._arrival:
            if len(odd) < len(results):
                self._odd.clear()
            self._odd |= odd.keys()
            self._doubtful |= odd
            self._arrival.notify()
        if good := {name: end for name, end in results.items() if name not in odd}:
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
                except Exception as error:  # Redis stayed away: others will do these again
                    self._abort(error)
                    return
                with self._arrival:
                    self._begun.difference_update(results)

    def _abort(self, error: Exception) -> None:
        self._lift()
        self._give_up(error)

    def _lift(self) -> None:
        self._crops.lift()
        self._bytes.lift()


def _parts(items: Sequence[T], sizes: Sequence[int], limit: int) -> Iterator[list[T]]:
    """Cut a list into parts of at most `limit` in all; what is larger stands alone."""
    part: list[T] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if part and total + size > limit:
            yield part
            part, total = [], 0
        part.append(item)
        total += size
    if part:
        yield part


def _pixels(record: Detection) -> int:
    return record.image.width * record.image.height


def _start(name: str, target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread
