"""Results computed ahead come in order, a bounded number ahead, and threads end."""

import threading
import time
from collections.abc import Iterator

import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.prefetch import in_order


def test_in_order_keeps_the_order_whatever_finishes_first() -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.003 * (5 - number % 5))
        return number

    assert list(in_order(slow_at_first, range(40), threads=4)) == list(range(40))
    assert list(in_order(slow_at_first, [], threads=4)) == []


def test_in_order_never_runs_further_ahead_than_it_says() -> None:
    lock = threading.Lock()
    started = consumed = most = 0

    def job(number: int) -> int:
        nonlocal started, most
        with lock:
            started += 1
            most = max(most, started - consumed)
        return number

    for _ in in_order(job, range(60), threads=3, ahead=5):
        time.sleep(0.002)
        with lock:
            consumed += 1
    assert started == consumed == 60
    assert 5 <= most <= 6  # five waiting, and the one being handed over


def test_in_order_raises_in_turn_and_ends_its_threads() -> None:
    def job(number: int) -> int:
        if number == 3:
            raise InputError("three")
        return number

    results = in_order(job, range(50), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="three"):
        next(results)
    assert next(results, None) is None
    assert not [t for t in threading.enumerate() if t.name.startswith("resdeploy")]


def test_closing_in_order_early_abandons_the_rest() -> None:
    started: list[int] = []
    results = in_order(started.append, range(1000), threads=2)
    next(results)
    results.close()  # type: ignore[attr-defined]  # a generator
    count = len(started)
    assert count <= 6
    assert not [t for t in threading.enumerate() if t.name.startswith("resdeploy")]
    assert len(started) == count


def test_jobs_that_raise_end_in_order() -> None:
    def jobs() -> Iterator[int]:
        yield from range(3)
        raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        list(in_order(abs, jobs(), threads=2))
