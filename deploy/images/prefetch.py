"""Computes results ahead in threads and yields them in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    threads: int,
    ahead: int | None = None,
) -> Iterator[Result]:
    """Yield function(job) in the order of `jobs`, computed by threads that run ahead.

    At most `ahead` results (default: two per thread) wait to be consumed, so memory stays bounded.
    Closing the iterator early abandons the rest.
    """
    ahead = 2 * threads if ahead is None else ahead
    waiting: deque[Future[Result]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="resdeploy")
    try:
        for job in jobs:
            waiting.append(executor.submit(function, job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
