# Generated from _async/folders.py by generate.py.
"""Uploads of many pictures."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from gamma_client._sync.connection import Connection
from gamma_client._sync.runtime import Together, in_thread, sleep
from gamma_client.calls import ENDED, MAX_IDS, Call, Picture, one, one_upload, several_uploads
from gamma_client.errors import DeletedError, ServiceError
from gamma_client.files import Options, Outcome, Progress, find_pictures, key_of
from gamma_client.models import BatchEntry, BatchResults, Detection, DetectionList, View


class Uploads:
    """Uploads of many pictures."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def submit_batch(
        self,
        pictures: Sequence[Picture],
        *,
        ref_ids: Sequence[str] | None = None,
        view: View | None = None,
        frames: int | None = None,
        webhook_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> list[BatchEntry]:
        """Upload up to 64 pictures in one request and return at once.

        Args:
            pictures: paths of files, or their bytes.
            ref_ids: your own reference of each.
            view: what the model looks at.
            frames: how many frames of an animation or pages of a TIFF to examine at most, 1 to 8.
            webhook_url: address that receives each record when its detection has ended.
            idempotency_key: your own name of the upload: a repetition returns the same detections.

        Returns:
            For each picture its detection, or the problem why it was refused. If it has
            `retry_after`, send that picture again after so many seconds.

        Raises:
            OSError: If a file cannot be read.
        """
        call = several_uploads(
            pictures,
            ref_ids,
            key=idempotency_key,
            view=view,
            frames=frames,
            webhook_url=webhook_url,
        )
        return (self._connection.read(call, BatchResults)).results

    def detect_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        run: str = "",
        skip: Container[Path] = frozenset(),
        view: View | None = None,
        frames: int | None = None,
        uploads: int = 8,
        waiting: int = MAX_IDS,
        progress: Callable[[Progress], object] | None = None,
    ) -> Iterator[Outcome]:
        """Upload the pictures of a folder and its subfolders, and collect their results.

        Repeat it after an interruption: what the service has already is sent, but not computed
        again. See `find_pictures` for the files that count.

        Args:
            folder: path of the folder.
            run: name of this run. The same run repeats no upload of the same file as long as its
                detection is kept, also not of one that failed; another run uploads all files again.
            skip: paths of files that are left out, such as those that have a result already.
            view: what the model looks at.
            frames: how many frames of an animation or pages of a TIFF to examine at most, 1 to 8.
            uploads: most uploads at the same time.
            waiting: most detections at the same time that have not ended, 1 to 100.
            progress: called after each step. The files are counted first.

        Yields:
            An outcome for each file, in the order in which they end. Take them swiftly: nothing
            is sent meanwhile.

        Raises:
            ServiceError: If the service refuses something other than the picture; those that have
                been sent are found again by the next call.
            OSError: If a folder cannot be read.
        """
        if not 1 <= waiting <= MAX_IDS or uploads < 1:
            raise ValueError(f"waiting must be 1 to {MAX_IDS}, and uploads at least 1")
        root, count, options = Path(folder), Progress(), Options(view, frames)
        if progress is not None:
            count.total = sum(path not in skip for path in find_pictures(root))
        files = (path for path in find_pictures(root) if path not in skip)
        under_way: dict[str, Path] = {}
        with Together(uploads) as together:
            upload = partial(self._upload, root, run, options)
            while True:
                room = min(uploads, waiting - len(under_way))
                some = list(islice(files, room))
                ended = []
                for outcome in together.map(upload, some):
                    count.accepted += outcome.detection is not None
                    if (waits := outcome.waits_for) is None:
                        ended.append(outcome)
                    else:
                        under_way[waits] = outcome.path
                if under_way:
                    ended += self._collect(under_way, hold=not some and not ended)
                count.add(ended)
                if progress is not None and (some or ended):
                    progress(replace(count))
                for outcome in ended:
                    yield outcome
                if room and not some and not under_way:
                    return

    def get_many(self, ids: Sequence[str]) -> DetectionList:
        """Return the current records of up to 100 detections, and the ids that are `missing`."""
        call = Call(method="GET", path="/v1/detections", params={"ids": ids})
        return self._connection.read(call, DetectionList)

    def _upload(self, root: Path, run: str, options: Options, path: Path) -> Outcome:
        try:
            key = in_thread(key_of, path, root, run, options)
            call = one_upload(path, url=None, key=key, **options._asdict())
            detection = self._connection.read(call, Detection)
        except ServiceError as error:
            if not error.of_picture:
                raise
            return Outcome(path, error=error)
        except OSError as error:
            return Outcome(path, error=error)
        return Outcome.of(path, detection)

    def _collect(self, under_way: dict[str, Path], *, hold: bool) -> list[Outcome]:
        """Remove what has ended, and return it; `hold`: wait up to a second for the oldest."""
        if hold:
            self._hold(next(iter(under_way)))
        found = self.get_many(list(under_way))
        ended = []
        for detection in found.detections:
            if detection.status in ENDED:
                ended.append(Outcome.of(under_way.pop(detection.id), detection))
        for name in found.missing:
            ended.append(Outcome(under_way.pop(name), error=DeletedError(name)))
        return ended

    def _hold(self, detection_id: str) -> None:
        """Return when the detection has ended, or after a second."""
        begun = time.monotonic()
        call = Call(method="GET", path=one(detection_id), headers={"Prefer": "wait=1"})
        try:
            detection = self._connection.read(call, Detection)
        except ServiceError as error:
            if error.status != 404:
                raise
        else:
            if detection.status not in ENDED:  # also if the answer was not held
                sleep(max(0, begun + 1 - time.monotonic()))
