"""Ends what a task waits for, with the reason why: it took too long, or nobody waits any more."""

import asyncio
import sys
from types import TracebackType

from resdeploy.deploy.serving.refusal import Reason, Refusal


class Interruptible:
    """A context on the event loop: an interrupt ends what is awaited in it and raises its refusal.

    `asyncio.wait_for` and `asyncio.wait` would make tasks of their own, several for each request.
    """

    def __init__(
        self, seconds: float | None = None, reason: Reason = "timeout", text: str = ""
    ) -> None:
        """Interrupt with this reason after so many seconds, if they are given."""
        self._seconds = seconds
        self._late = (reason, text)
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: Refusal | None = None

    def interrupt(self, reason: Reason, text: str) -> None:
        """End the wait; only the first reason counts, and none once the context was left."""
        if self._task is not None and self._refusal is None:
            self._refusal = Refusal(reason, text)
            self._task.cancel()

    def __enter__(self) -> "Interruptible":
        self._task = asyncio.current_task()
        if self._seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self.interrupt, *self._late)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        if self._refusal is not None and isinstance(error, asyncio.CancelledError):
            if task is not None and sys.version_info >= (3, 11):
                task.uncancel()
            raise self._refusal from error
