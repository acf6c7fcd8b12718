"""An answer comes through several threads, and whoever leaves takes its work along."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from resdeploy.deploy.serving.waiting import Waiting


class _Answer:
    """Something that can be watched."""


def test_an_answer_that_another_thread_gives() -> None:
    async def ask() -> str:
        waiting = Waiting[str]()
        second: Future[str] = Future()
        with ThreadPoolExecutor(1) as threads:
            threads.submit(waiting.run, lambda: second)
            threads.submit(second.set_result, "answer")
            return await waiting.answer

    assert asyncio.run(ask()) == "answer"


def test_what_fails_in_either_thread_is_raised() -> None:
    async def ask(*, early: bool) -> None:
        waiting = Waiting[str]()
        second: Future[str] = Future()

        def work() -> Future[str]:
            if early:
                raise KeyError("the first")
            second.set_exception(KeyError("the second"))
            return second

        with ThreadPoolExecutor(1) as threads:
            threads.submit(waiting.run, work)
            await waiting.answer

    with pytest.raises(KeyError, match="the first"):
        asyncio.run(ask(early=True))
    with pytest.raises(KeyError, match="the second"):
        asyncio.run(ask(early=False))


def test_whoever_leaves_takes_the_work_along() -> None:
    async def leave() -> None:
        waiting, begun = Waiting[str](), threading.Event()
        held: Future[str] = Future()
        waiting.hold(held)
        waiting.answer.cancel()
        await asyncio.sleep(0)
        assert held.cancelled()
        waiting.run(lambda: begun.set() or held)  # type: ignore[func-returns-value]
        assert not begun.is_set()

    asyncio.run(leave())


def test_whoever_left_while_a_thread_worked_takes_the_rest_along() -> None:
    async def leave() -> Future[str]:
        waiting = Waiting[str]()
        held: Future[str] = Future()

        def work() -> Future[str]:
            waiting.answer.cancel()
            return held

        waiting.run(work)
        return held

    assert asyncio.run(leave()).cancelled()


def test_an_answer_is_kept_by_nobody() -> None:
    async def ask() -> "weakref.ref[_Answer]":
        waiting, held = Waiting[_Answer](), Future[_Answer]()
        waiting.hold(held)
        held.set_result(_Answer())
        return weakref.ref(await waiting.answer)

    gc.disable()  # which would hide a circle
    try:
        assert asyncio.run(ask())() is None
    finally:
        gc.enable()
