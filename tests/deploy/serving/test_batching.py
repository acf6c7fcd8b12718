"""Batches are shared, ordered and bounded, and no request spoils another."""

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import BackendError
from resdeploy.deploy.serving.batching import Batcher, BatchRecord, BatchRules, Share
from resdeploy.deploy.serving.refusal import Refusal

_WAIT_S = 10.0


def _rows(*values: float) -> Float32s:
    return np.array(values, np.float32).reshape(-1, 1, 1, 1)


class _Gate:
    """A network that answers 2 x + 1, once the gate is open, and remembers its batches."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Semaphore(0)
        self.batches: list[list[float]] = []

    def run(self, rows: Float32s) -> Float32s:
        self.batches.append(rows.ravel().tolist())
        self.begun.release()
        assert self.open.wait(_WAIT_S)
        if (rows == 13).any():
            raise BackendError("13 is not a number for this network")
        return 2 * rows.reshape(-1, 1) + 1


@contextmanager
def _batcher(
    gate: _Gate,
    rules: BatchRules,
    records: list[BatchRecord] | None = None,
) -> Iterator[Batcher]:
    batcher = Batcher(gate.run, rules, observe=(records if records is not None else []).append)
    try:
        yield batcher
    finally:
        gate.open.set()
        batcher.close()


def _busy(batcher: Batcher, gate: _Gate, value: float = 0.0) -> None:
    """Occupy one worker, so that what follows waits."""
    batcher.submit(_rows(value))
    assert gate.begun.acquire(timeout=_WAIT_S)


def test_requests_that_wait_share_a_batch_and_get_their_own_answers() -> None:
    gate = _Gate()
    records: list[BatchRecord] = []
    with _batcher(gate, BatchRules(max_batch=8, max_wait_s=0), records) as batcher:
        _busy(batcher, gate)
        futures = [batcher.submit(_rows(1)), batcher.submit(_rows(2, 3)), batcher.submit(_rows(4))]
        assert batcher.pending == 4
        gate.open.set()
        answers = [future.result(_WAIT_S) for future in futures]
    assert gate.batches == [[0], [1, 2, 3, 4]]
    assert [answer.logits.ravel().tolist() for answer in answers] == [[3], [5, 7], [9]]
    assert [answer.batch for answer in answers] == [4, 4, 4]
    assert [record.rows for record in records] == [1, 4]
    assert len(records[1].queue_s) == 3
    assert batcher.pending == 0


def test_a_batch_is_never_larger_than_the_limit_and_a_request_is_not_split() -> None:
    gate = _Gate()
    with _batcher(gate, BatchRules(max_batch=3, max_wait_s=0)) as batcher:
        _busy(batcher, gate)
        futures = [
            batcher.submit(_rows(1, 2)),
            batcher.submit(_rows(3, 4)),
            batcher.submit(_rows(5)),
        ]
        gate.open.set()
        for future in futures:
            future.result(_WAIT_S)
        with pytest.raises(ValueError, match="4 rows, expected 1 to 3"):
            batcher.submit(_rows(1, 2, 3, 4))
    assert gate.batches == [[0], [1, 2], [3, 4, 5]]


def test_the_first_row_waits_for_company() -> None:
    gate = _Gate()
    gate.open.set()
    with _batcher(gate, BatchRules(max_batch=2, max_wait_s=_WAIT_S)) as batcher:
        first = batcher.submit(_rows(1))
        second = batcher.submit(_rows(2))
        assert first.result(_WAIT_S / 2).batch == second.result(_WAIT_S / 2).batch == 2
    assert gate.batches == [[1, 2]]


def test_a_request_that_left_or_expired_is_not_inferred() -> None:
    gate = _Gate()
    with _batcher(gate, BatchRules(max_batch=8, max_wait_s=0)) as batcher:
        _busy(batcher, gate)
        gone = batcher.submit(_rows(1))
        late = batcher.submit(_rows(2), timeout_s=0)
        kept = batcher.submit(_rows(3))
        assert gone.cancel()
        assert batcher.pending == 2
        gate.open.set()
        assert kept.result(_WAIT_S).logits.tolist() == [[7]]
        with pytest.raises(Refusal, match="time ran out") as refusal:
            late.result(_WAIT_S)
    assert refusal.value.reason == "timeout"
    assert gate.batches == [[0], [3]]


def test_one_bad_request_does_not_spoil_its_neighbours() -> None:
    gate = _Gate()
    with _batcher(gate, BatchRules(max_batch=8, max_wait_s=0)) as batcher:
        _busy(batcher, gate)
        before, bad, after = (batcher.submit(_rows(value)) for value in (1, 13, 2))
        gate.open.set()
        assert before.result(_WAIT_S).logits.tolist() == [[3]]
        assert after.result(_WAIT_S).logits.tolist() == [[5]]
        with pytest.raises(BackendError, match="13"):
            bad.result(_WAIT_S)
        assert batcher.submit(_rows(5)).result(_WAIT_S).logits.tolist() == [[11]]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    gate = _Gate()
    with _batcher(gate, BatchRules(max_batch=2, max_wait_s=0, max_pending=3)) as batcher:
        _busy(batcher, gate)
        waiting = [batcher.submit(_rows(1, 2)), batcher.submit(_rows(3))]
        with pytest.raises(Refusal, match="3 images wait already, limit: 3") as refusal:
            batcher.submit(_rows(4))
        assert refusal.value.reason == "overloaded"
        assert refusal.value.retry_after_s == 1
        waiting[0].cancel()  # makes room at once
        fits = batcher.submit(_rows(4))
        gate.open.set()
        assert fits.result(_WAIT_S).logits.tolist() == [[9]]


def test_urgent_requests_go_first_and_equals_in_order() -> None:
    gate = _Gate()
    with _batcher(gate, BatchRules(max_batch=2, max_wait_s=0)) as batcher:
        _busy(batcher, gate)
        futures = [
            batcher.submit(_rows(value), priority=priority)
            for value, priority in ((1, 200), (2, 0), (3, 0), (4, 1))
        ]
        gate.open.set()
        for future in futures:
            future.result(_WAIT_S)
    assert gate.batches == [[0], [4, 2], [3, 1]]


def test_closing_answers_what_waits_and_refuses_what_comes() -> None:
    gate = _Gate()
    with _batcher(gate, BatchRules(max_batch=1, max_wait_s=_WAIT_S)) as batcher:
        _busy(batcher, gate)
        waiting = [batcher.submit(_rows(value)) for value in (1, 2, 3)]
        closing = threading.Thread(target=batcher.close)
        closing.start()
        gate.open.set()
        closing.join(_WAIT_S)
        assert [future.result(0).logits.item() for future in waiting] == [3, 5, 7]
        with pytest.raises(Refusal, match="unloaded"):
            batcher.submit(_rows(1))


def test_on_a_cpu_waiting_rows_are_spread_over_all_workers() -> None:
    gate = _Gate()
    rules = BatchRules(max_batch=8, max_wait_s=_WAIT_S, workers=2, spread=True)
    with _batcher(gate, rules) as batcher:
        futures = [batcher.submit(_rows(value)) for value in range(8)]
        for _ in range(2):  # both have begun, none has ended
            assert gate.begun.acquire(timeout=_WAIT_S)
        gate.open.set()
        answers = [future.result(_WAIT_S) for future in futures]
    assert list(map(len, gate.batches)) == [4, 2, 1, 1]  # half of what is left, rounded up
    assert [answer.logits.item() for answer in answers] == [2 * v + 1 for v in range(8)]


@pytest.mark.parametrize(
    ("costs_s", "best"), [((4, 3, 2, 1), 1), ((1, 2, 3, 4), 8), ((3, 1, 2, 4), 4)]
)
def test_the_size_that_makes_a_row_cheapest_is_learned_and_learned_anew(
    costs_s: tuple[int, ...], best: int
) -> None:
    share = Share(8)
    sizes = (8, 4, 2, 1)

    def run(costs_s: Sequence[int]) -> list[int]:
        taken = [share.next() for _ in range(64)]
        for rows in taken:
            share.learn(rows, costs_s[sizes.index(rows)])
        return taken

    assert run(costs_s) == [*sizes] * 16  # each is tried at first
    taken = [*run(costs_s), *run(costs_s)]
    assert taken.count(best) >= 0.9 * len(taken) and set(taken) == set(sizes)
    for _ in range(64):  # the machine changes
        taken = run(costs_s[::-1])
    assert max(sizes, key=taken.count) == sizes[costs_s[::-1].index(min(costs_s))]


def test_sizes_that_never_came_are_not_chosen() -> None:
    share = Share(6)
    assert [share.next() for _ in range(3)] == [4, 2, 1]
    for _ in range(100):
        share.learn(3, 0.1)  # of requests with several rows; no size that is tried
    share.learn(2, 1)
    taken = [share.next() for _ in range(480)]
    assert set(taken) == {4, 2, 1} and taken.count(2) > 0.8 * len(taken)


def test_a_request_that_is_done_leaves_nothing_in_memory() -> None:
    gate = _Gate()
    gate.open.set()
    gc.disable()  # no circle may need it
    try:
        with _batcher(gate, BatchRules(max_wait_s=0)) as batcher:
            rows = _rows(1, 2)
            gone = weakref.ref(rows)
            batcher.submit(rows).result(_WAIT_S)
            del rows
            batcher.submit(_rows(3)).result(_WAIT_S)  # the worker has another batch in hand
            assert gone() is None
    finally:
        gc.enable()
