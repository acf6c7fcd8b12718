"""Dynamic batching: rows of many requests in, logits of each request out, in worker threads.

A worker takes a batch as soon as `max_batch` rows wait, or when the oldest of them has waited
`max_wait_s`. A request is never split over two batches. Requests leave in order of priority, then
of arrival. One that was cancelled or has expired leaves before the inference; when a batch fails,
each of its requests is run alone, so that one cannot spoil its neighbours.

On a CPU the rows that wait are spread over all workers, one for each core: each takes its share of
what is left (guided self-scheduling: Polychronopoulos and Kuck, 1987), but no more than what makes
a row cheapest, which is learned. On a GPU they stay together.
"""

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import BackendError
from resdeploy.deploy.serving.refusal import Refusal

# Triton's convention: 1 is the most urgent, 0 asks for the default
DEFAULT_PRIORITY = 100

# how often each size of a run is tried at first, and one round in how many is of trials later
_TRIALS = 16


@dataclass(frozen=True)
class BatchRules:
    """How requests share batches.

    Attributes:
        max_batch: rows of one inference.
        max_wait_s: how long the first row waits for others.
        max_pending: rows that may wait; beyond it a request is refused at once.
        workers: inferences that run at the same time.
        spread: whether waiting rows are divided among the workers.
    """

    max_batch: int = 8
    max_wait_s: float = 0.002
    max_pending: int = 256
    workers: int = 1
    spread: bool = False


@dataclass(frozen=True)
class Answer:
    """Logits (N, classes) float32 of one request, and how it fared."""

    logits: Float32s
    queue_s: float
    inference_s: float
    batch: int


@dataclass(frozen=True)
class BatchRecord:
    """One inference: its rows, its time, its logits, and how long each request had waited."""

    rows: int
    inference_s: float
    logits: Float32s
    queue_s: tuple[float, ...]


@dataclass(frozen=True, order=True)
class _Entry:
    priority: int
    number: int
    rows: Float32s = field(compare=False)
    future: "Future[Answer]" = field(compare=False)
    submitted_s: float = field(compare=False)
    deadline_s: float = field(compare=False)


class Share:
    """How many rows one run should take at most, learned from what runs of each size have cost.

    A row alone finds its values in the core's caches, rows together read the weights once:
    one of eight costs MobileNetV2 12 % more than one alone, and ResNet-18 at 96 pixels 28 % less.
    The sizes 8, 4, 2, 1 are tried in turn, at first always and then now and then.
    """

    def __init__(self, most: int) -> None:
        """For runs of at most so many rows."""
        self._sizes = [1 << power for power in reversed(range(most.bit_length()))]
        self._row_s: dict[int, float] = {}
        self._turn = 0

    def next(self) -> int:
        """The most rows that the next run should take."""
        rounds, turn = divmod(self._turn, len(self._sizes))
        self._turn += 1
        if rounds < _TRIALS or rounds % _TRIALS == 0 or not self._row_s:
            return self._sizes[turn]
        return min(self._row_s, key=self._row_s.__getitem__)

    def learn(self, rows: int, row_s: float) -> None:
        """A run of so many rows took this CPU time for each of them; older runs count less."""
        if rows in self._sizes:
            before = self._row_s.get(rows, row_s)
            self._row_s[rows] = before + (row_s - before) / _TRIALS


def _ignore(record: BatchRecord) -> None:
    """For a batcher that nobody observes."""


class Batcher:
    """Runs the requests of one model; close it, which first answers everything that waits."""

    def __init__(
        self,
        run: Callable[[Float32s], Float32s],
        rules: BatchRules,
        *,
        name: str = "batcher",
        observe: Callable[[BatchRecord], None] = _ignore,
    ) -> None:
        """Start the workers.

        Args:
            run: (N, 3, H, W) float32 to (N, classes) float32; called from several threads.
            name: of the threads.
            observe: called in a worker after every inference.
        """
        self._run = run
        self._observe = observe
        self.rules = rules
        self._changed = threading.Condition()
        self._heap: list[_Entry] = []
        self._waiting: dict[int, _Entry] = {}
        self._rows = 0
        self._row_s = 0.0
        self._share = Share(rules.max_batch)
        self._due = -1  # requests up to this number have waited long enough
        self._closed = False
        self._numbers = itertools.count()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True)
            for index in range(rules.workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pending(self) -> int:
        """Rows that wait for a worker."""
        return self._rows

    def submit(
        self, rows: Float32s, *, priority: int = 0, timeout_s: float = math.inf
    ) -> "Future[Answer]":
        """Queue (N, 3, H, W) float32 with N up to `max_batch`; cancel the future to leave.

        Args:
            priority: 1 is served first; 0 means the default.
            timeout_s: how long the request may wait for its inference to begin.

        Raises:
            Refusal: overloaded, or closed.
        """
        if not 1 <= len(rows) <= self.rules.max_batch:
            raise ValueError(f"{len(rows)} rows, expected 1 to {self.rules.max_batch}")
        now = time.monotonic()
        with self._changed:
            if self._closed:
                raise Refusal("not_ready", "the model is being unloaded", retry_after_s=1)
            if self._rows + len(rows) > self.rules.max_pending:
                raise Refusal(
                    "overloaded",
                    f"{self._rows} images wait already, limit: {self.rules.max_pending}: "
                    "try again later",
                    retry_after_s=self._seconds_of_work(),
                )
            level = priority or DEFAULT_PRIORITY
            entry = _Entry(level, next(self._numbers), rows, Future(), now, now + timeout_s)
            heapq.heappush(self._heap, entry)
            self._waiting[entry.number] = entry
            self._rows += len(rows)
            self._changed.notify()
        number = entry.number
        # of the number: the entry holds the future, and a circle would keep its rows for long
        entry.future.add_done_callback(lambda _: self._leave(number))
        return entry.future

    def close(self) -> None:
        """Refuse new requests, answer those that wait, stop the workers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _leave(self, number: int) -> None:
        """Forget an entry that was cancelled while it waited; others have left already."""
        with self._changed:
            if (entry := self._waiting.pop(number, None)) is not None:
                self._rows -= len(entry.rows)

    def _seconds_of_work(self) -> int:
        return max(1, math.ceil(self._rows * self._row_s / self.rules.workers))

    def _work(self) -> None:
        while batch := self._next_batch():
            now = time.monotonic()
            live = []
            for entry in batch:
                if not entry.future.set_running_or_notify_cancel():
                    continue
                if now < entry.deadline_s:
                    live.append(entry)
                else:
                    late = Refusal("timeout", "the request's time ran out while it waited")
                    entry.future.set_exception(late)
            if live:
                used_s = time.thread_time()
                self._answer(live)
                rows = sum(len(entry.rows) for entry in live)
                with self._changed:
                    self._share.learn(rows, (time.thread_time() - used_s) / rows)

    def _next_batch(self) -> list[_Entry]:
        """Wait for a batch that is due; empty once closed and drained."""
        with self._changed:
            while self._waiting or not self._closed:
                if not self._waiting:
                    self._changed.wait()
                elif (left_s := self._left_s()) > 0:
                    self._changed.wait(left_s)
                else:
                    return self._take()
            return []

    def _left_s(self) -> float:
        """How long a batch of what waits may still wait for more."""
        first = next(iter(self._waiting))  # in order of arrival
        if self._closed or first <= self._due or self._rows >= self.rules.max_batch:
            return 0.0
        return self._waiting[first].submitted_s + self.rules.max_wait_s - time.monotonic()

    def _take(self) -> list[_Entry]:
        most = self.rules.max_batch
        if self.rules.spread:
            waiting = math.ceil(self._rows / self.rules.workers)
            most = 1 if waiting == 1 else min(waiting, self._share.next())
            self._due = next(reversed(self._waiting))  # the other shares go at once
        batch: list[_Entry] = []
        rows = 0
        while self._heap:
            entry = self._heap[0]
            if entry.number in self._waiting:
                if batch and rows + len(entry.rows) > most:
                    break
                batch.append(entry)
                rows += len(entry.rows)
                del self._waiting[entry.number]
            heapq.heappop(self._heap)
        self._rows -= rows
        if self._waiting:
            self._changed.notify()
        return batch

    def _answer(self, batch: Sequence[_Entry]) -> None:
        rows = batch[0].rows if len(batch) == 1 else np.concatenate([e.rows for e in batch])
        begun = time.monotonic()
        try:
            logits = self._run(rows)
            if len(logits) != len(rows):
                raise BackendError(f"{len(logits)} answers to {len(rows)} images")
        except Exception as error:  # whatever it is, the worker goes on
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:
                for entry in batch:
                    self._answer([entry])
            return
        inference_s = time.monotonic() - begun
        self._row_s = inference_s / len(rows)
        queue_s = tuple(begun - entry.submitted_s for entry in batch)
        self._observe(BatchRecord(len(rows), inference_s, logits, queue_s))
        start = 0
        for entry, waited_s in zip(batch, queue_s, strict=True):
            part = logits[start : start + len(entry.rows)]
            start += len(entry.rows)
            entry.future.set_result(Answer(part, waited_s, inference_s, len(rows)))
