"""A CUDA that keeps its memory on the host, for tests of what is done with the real one."""

import ctypes
from collections.abc import Callable
from typing import Any


class HostCuda:
    """libcudart's functions over host memory; counts what is alive, and can be told to fail."""

    def __init__(self) -> None:
        self.alive: dict[int, Any] = {}
        self.calls: list[str] = []
        self.fails: dict[str, int] = {}
        self.replay_is_wrong = False
        self._recording: list[Callable[[], None]] | None = None
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._next = 1 << 40

    def __getattr__(self, name: str) -> Callable[..., int]:
        body = getattr(HostCuda, f"_{name}")

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if self.fails.get(name, 0):
                self.fails[name] -= 1
                return 2
            body(self, *arguments)
            return 0

        return call

    def do(self, work: Callable[[], None]) -> None:
        """Do work of a stream now, or record it."""
        work() if self._recording is None else self._recording.append(work)

    def _handle(self, out: Any, what: Any) -> None:
        self._next += 1
        self.alive[self._next] = what
        out._obj.value = self._next

    def _release(self, handle: int) -> None:
        del self.alive[handle]  # a second release is a KeyError

    def _cudaGetLastError(self) -> None:
        pass

    def _cudaMalloc(self, out: Any, size: int) -> None:
        memory = ctypes.create_string_buffer(size)
        out._obj.value = ctypes.addressof(memory)
        self.alive[out._obj.value] = memory

    def _cudaHostAlloc(self, out: Any, size: int, flags: int) -> None:
        self._cudaMalloc(out, size)

    def _cudaHostGetDevicePointer(self, out: Any, address: int, flags: int) -> None:
        out._obj.value = address

    def _cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        def copy() -> None:
            ctypes.memmove(to, source, size)

        self.do(copy)

    def _cudaStreamCreateWithFlags(self, out: Any, flags: int) -> None:
        self._handle(out, "stream")

    def _cudaStreamSynchronize(self, stream: int) -> None:
        assert stream in self.alive

    def _cudaStreamBeginCapture(self, stream: int, mode: int) -> None:
        self._recording = []

    def _cudaStreamEndCapture(self, stream: int, out: Any) -> None:
        recording, self._recording = self._recording, None
        self._handle(out, recording)

    def _cudaGraphInstantiateWithFlags(self, out: Any, graph: int, flags: int) -> None:
        self._handle(out, self.alive[graph])

    def _cudaGraphLaunch(self, graph: int, stream: int) -> None:
        if not self.replay_is_wrong:
            for work in self.alive[graph]:
                work()

    _cudaFree = _cudaFreeHost = _cudaStreamDestroy = _release
    _cudaGraphDestroy = _cudaGraphExecDestroy = _release
