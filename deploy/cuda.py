"""CUDA through ctypes: is there a GPU, which one, and memory, streams and graphs on it.

TensorRT 11's lean runtime ends the whole process when it deserializes an engine on a machine
without CUDA, and ONNX Runtime lists its CUDA provider on machines that have no GPU: the driver
is asked first, through libcuda, which makes no context. Everything that needs a context goes
through libcudart, whichever of versions 11 to 13 works with this driver; streams and memory are
the driver's, so it need not be the very one that TensorRT was linked with.
"""

import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from resdeploy.deploy.errors import BackendError

_CUDA_SUCCESS = 0

# CUdevice_attribute; their numbers are part of the driver's ABI
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR, _INTEGRATED = 75, 76, 18

_HOST_ALLOC_MAPPED = 2
_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2
_NON_BLOCKING_STREAM = 1
# a capture refuses only what its own thread does: other threads go on allocating
_CAPTURE_THREAD_LOCAL = 1

_POINTER = ctypes.c_void_p
_POINTER_OUT = ctypes.POINTER(ctypes.c_void_p)
_SIZE_OUT = ctypes.POINTER(ctypes.c_size_t)
_UINT = ctypes.c_uint
_INT = ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaGetDeviceCount": (ctypes.POINTER(ctypes.c_int),),
    "cudaMemGetInfo": (_SIZE_OUT, _SIZE_OUT),
    "cudaMalloc": (_POINTER_OUT, ctypes.c_size_t),
    "cudaFree": (_POINTER,),
    "cudaHostAlloc": (_POINTER_OUT, ctypes.c_size_t, _UINT),
    "cudaHostGetDevicePointer": (_POINTER_OUT, _POINTER, _UINT),
    "cudaFreeHost": (_POINTER,),
    "cudaMemcpyAsync": (_POINTER, _POINTER, ctypes.c_size_t, _INT, _POINTER),
    "cudaStreamCreateWithFlags": (_POINTER_OUT, _UINT),
    "cudaStreamSynchronize": (_POINTER,),
    "cudaStreamDestroy": (_POINTER,),
    "cudaStreamBeginCapture": (_POINTER, _INT),
    "cudaStreamEndCapture": (_POINTER, _POINTER_OUT),
    "cudaGraphInstantiateWithFlags": (_POINTER_OUT, _POINTER, ctypes.c_ulonglong),
    "cudaGraphLaunch": (_POINTER, _POINTER),
    "cudaGraphDestroy": (_POINTER,),
    "cudaGraphExecDestroy": (_POINTER,),
    "cudaGetLastError": (),
}


@dataclass(frozen=True)
class Device:
    """The GPU in use: `integrated` means that it shares its memory with the CPU (a Jetson)."""

    name: str
    compute_capability: str
    integrated: bool


@lru_cache(maxsize=1)
def cuda_problem() -> str | None:
    """None when a CUDA driver and at least one device are here, else one line saying what lacks."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver on this machine (libcuda.so.1 not found)"
    status = driver.cuInit(0)
    if status != _CUDA_SUCCESS:
        return f"the NVIDIA driver does not start (cuInit returned {status})"
    count = ctypes.c_int()
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != _CUDA_SUCCESS or count.value == 0:
        return "the NVIDIA driver sees no GPU"
    return None


@lru_cache(maxsize=1)
def device() -> Device | None:
    """The first visible GPU, asked of the driver without making a context; None without one."""
    if cuda_problem() is not None:
        return None
    driver = ctypes.CDLL("libcuda.so.1")
    handle, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(handle), 0)
    driver.cuDeviceGetName(name, len(name), handle)
    major, minor, integrated = (
        _attribute(driver, handle, number)
        for number in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR, _INTEGRATED)
    )
    return Device(name.value.decode(errors="replace"), f"{major}.{minor}", bool(integrated))


class Cuda:
    """The few functions of libcudart that a session needs; any failure is a BackendError."""

    def __init__(self, library: Any) -> None:
        """`library` has libcudart's functions; tests pass one that keeps host memory."""
        self._library = library

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of libcudart that returns a cudaError."""
        status = getattr(self._library, function)(*arguments)
        if status != _CUDA_SUCCESS:
            self._library.cudaGetLastError()  # an error that stays would be blamed on the next call
            raise BackendError(f"CUDA: {function} failed with error {status}{_meaning(status)}")

    def free_memory_bytes(self) -> int:
        """Free memory of the device."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate(self, size_bytes: int) -> int:
        """The address of new device memory."""
        return self._pointer("cudaMalloc", size_bytes)

    def free(self, address: int) -> None:
        """Give device memory back."""
        self.call("cudaFree", address)

    def allocate_host(self, size_bytes: int) -> int:
        """The address of new page-locked host memory, which the device can map."""
        return self._pointer("cudaHostAlloc", size_bytes, _HOST_ALLOC_MAPPED)

    def device_address(self, host_address: int) -> int:
        """What the device calls page-locked host memory: on a Jetson, no copy is needed."""
        return self._pointer("cudaHostGetDevicePointer", host_address, 0)

    def free_host(self, address: int) -> None:
        """Give page-locked host memory back."""
        self.call("cudaFreeHost", address)

    def create_stream(self) -> int:
        """A stream that does not wait for the default stream."""
        return self._pointer("cudaStreamCreateWithFlags", _NON_BLOCKING_STREAM)

    def synchronize(self, stream: int) -> None:
        """Wait until the stream has done everything."""
        self.call("cudaStreamSynchronize", stream)

    def destroy_stream(self, stream: int) -> None:
        """End a stream."""
        self.call("cudaStreamDestroy", stream)

    def copy_to_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Begin copying page-locked host memory to the device."""
        self.call("cudaMemcpyAsync", target, source, size_bytes, _HOST_TO_DEVICE, stream)

    def copy_to_host(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Begin copying device memory to page-locked host memory."""
        self.call("cudaMemcpyAsync", target, source, size_bytes, _DEVICE_TO_HOST, stream)

    def begin_capture(self, stream: int) -> None:
        """Record what follows on the stream instead of doing it."""
        self.call("cudaStreamBeginCapture", stream, _CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """Stop recording; the executable graph, to be launched and destroyed by the caller."""
        graph = self._pointer("cudaStreamEndCapture", stream, result_last=True)
        if not graph:
            raise BackendError("CUDA: what was recorded is not a graph")
        try:
            return self._pointer("cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            self.call("cudaGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Do what was recorded."""
        self.call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Give an executable graph back."""
        self.call("cudaGraphExecDestroy", graph)

    def _pointer(self, function: str, *arguments: Any, result_last: bool = False) -> int:
        pointer = ctypes.c_void_p()
        result = ctypes.byref(pointer)
        self.call(function, *((*arguments, result) if result_last else (result, *arguments)))
        return pointer.value or 0


def load_cuda() -> Cuda:
    """The libcudart that works with this driver.

    Raises:
        BackendError: no GPU, or no libcudart that starts.
    """
    if problem := cuda_problem():
        raise BackendError(f"this needs an NVIDIA GPU: {problem}")
    tried = []
    for name in _candidates():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        for function, arguments in _SIGNATURES.items():
            getattr(library, function).argtypes = arguments
        count = ctypes.c_int()
        status = library.cudaGetDeviceCount(ctypes.byref(count))
        if status == _CUDA_SUCCESS and count.value:
            return Cuda(library)
        tried.append(f"{Path(name).name} gives error {status}{_meaning(status)}")
    found = "; ".join(tried) or "no libcudart.so.11 to 13 found"
    raise BackendError(
        f"CUDA's runtime does not start: {found}: install the CUDA toolkit, or "
        "pip install nvidia-cuda-runtime, or a newer NVIDIA driver"
    )


def _candidates() -> Iterator[str]:
    for version in (13, 12, 11):
        yield f"libcudart.so.{version}"
    # the wheels that come with TensorRT, PyTorch and ONNX Runtime are not on the loader's path
    for folder in sys.path:
        for pattern in ("nvidia/cu1[0-9]/lib", "nvidia/cuda_runtime/lib"):
            yield from map(str, Path(folder or ".").glob(f"{pattern}/libcudart.so.*"))
    yield from map(str, Path("/usr/local/cuda/lib64").glob("libcudart.so.*"))


def _attribute(driver: Any, handle: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, handle)
    return value.value


def _meaning(status: int) -> str:
    known = {
        2: "out of memory",
        35: "the driver is too old for this CUDA",
        100: "no device",
        209: "no kernel for this GPU",
        700: "illegal address",
    }
    return f" ({known[status]})" if status in known else ""
