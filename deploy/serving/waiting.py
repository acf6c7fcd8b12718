"""What the event loop waits for while threads work: one answer, through several threads.

Between a decoder and a batch nothing returns to the loop: each of its turns costs a request about
as much as reading its headers.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Waiting(Generic[Result]):
    """Await `answer` on the loop that made it; cancelling it cancels what is held in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._held: Future[Result] | None = None
        self.answer: asyncio.Future[Result] = self._loop.create_future()
        self.answer.add_done_callback(self._leave)

    def hold(self, future: "Future[Result]") -> None:
        """Take the answer from this one; from any thread."""
        self._held = future
        if self.answer.cancelled():  # meanwhile, and without this one
            future.cancel()
        future.add_done_callback(self._done)

    def run(self, work: Callable[[], "Future[Result]"]) -> None:
        """Begin, in a thread, what gives the future to hold; what it raises is the answer."""
        if self.answer.cancelled():
            return
        try:
            self.hold(work())
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._fail, error)

    def _done(self, future: "Future[Result]") -> None:
        self._held = None  # which holds this method: a circle would keep the images for long
        if not (future.cancelled() or self._loop.is_closed()):
            self._loop.call_soon_threadsafe(self._settle, future)

    def _settle(self, future: "Future[Result]") -> None:
        if error := future.exception():
            self._fail(error)
        elif not self.answer.done():
            self.answer.set_result(future.result())

    def _fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def _leave(self, answer: "asyncio.Future[Result]") -> None:
        if answer.cancelled() and self._held is not None:
            self._held.cancel()
