"""An interrupt ends a wait with its reason, once, and nothing else."""

import asyncio

import pytest

from resdeploy.deploy.serving.interrupt import Interruptible
from resdeploy.deploy.serving.refusal import Reason, Refusal

_LATE: tuple[Reason, str] = ("timeout", "late")
_LEFT: tuple[Reason, str] = ("client_left", "left")


def test_the_time_runs_out() -> None:
    async def wait() -> None:
        with Interruptible(0.001, *_LATE):
            await asyncio.sleep(30)

    with pytest.raises(Refusal, match="late"):
        asyncio.run(wait())


def test_what_ends_in_time_is_not_touched() -> None:
    async def wait() -> str:
        with Interruptible(0.001, *_LATE) as waiting:
            answer = await asyncio.sleep(0, "answer")
        waiting.interrupt(*_LEFT)
        await asyncio.sleep(0.005)  # the timer is gone too
        return answer

    assert asyncio.run(wait()) == "answer"


def test_the_first_of_two_reasons_counts() -> None:
    async def wait() -> None:
        with Interruptible() as outer:
            loop = asyncio.get_running_loop()
            loop.call_soon(outer.interrupt, *_LEFT)
            loop.call_soon(outer.interrupt, *_LATE)
            with Interruptible(30, *_LATE):
                await asyncio.sleep(30)

    with pytest.raises(Refusal, match="left"):
        asyncio.run(wait())


def test_a_task_that_somebody_cancels_is_cancelled() -> None:
    async def wait() -> None:
        with Interruptible(30, *_LATE):
            await asyncio.sleep(30)

    async def cancel() -> None:
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
