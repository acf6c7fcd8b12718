"""CUDA's few functions: pointers come back, failures are one line, and captures end."""

import ctypes

import pytest

from resdeploy.deploy.cuda import Cuda, cuda_problem, device, load_cuda
from resdeploy.deploy.errors import BackendError
from tests.host_cuda import HostCuda

_BYTES = 16


@pytest.mark.skipif(cuda_problem() is None, reason="a GPU is here")
def test_without_a_gpu_the_reason_is_one_line() -> None:
    problem = cuda_problem()
    assert problem is not None and "\n" not in problem and "NVIDIA" in problem
    assert device() is None
    with pytest.raises(BackendError, match="this needs an NVIDIA GPU: ") as caught:
        load_cuda()
    assert problem in str(caught.value) and caught.value.exit_code == 4


def test_bytes_go_to_the_device_and_back() -> None:
    library = HostCuda()
    cuda = Cuda(library)
    stream = cuda.create_stream()
    there, back, on_device = (
        cuda.allocate_host(_BYTES),
        cuda.allocate_host(_BYTES),
        cuda.allocate(_BYTES),
    )
    ctypes.memmove(there, b"0123456789abcdef", _BYTES)
    cuda.copy_to_device(on_device, there, _BYTES, stream)
    cuda.copy_to_host(back, on_device, _BYTES, stream)
    cuda.synchronize(stream)
    assert ctypes.string_at(back, _BYTES) == b"0123456789abcdef"
    for address in (there, back):
        cuda.free_host(address)
    cuda.free(on_device)
    cuda.destroy_stream(stream)
    assert library.alive == {}


def test_what_is_captured_is_done_at_launch_only() -> None:
    library = HostCuda()
    cuda = Cuda(library)
    stream, source, target = cuda.create_stream(), cuda.allocate_host(4), cuda.allocate(4)
    ctypes.memmove(source, b"new.", 4)
    ctypes.memmove(target, b"old.", 4)
    cuda.begin_capture(stream)
    cuda.copy_to_device(target, source, 4, stream)
    graph = cuda.end_capture(stream)
    assert ctypes.string_at(target, 4) == b"old."
    cuda.launch(graph, stream)
    assert ctypes.string_at(target, 4) == b"new."
    cuda.destroy_graph(graph)
    # the recording itself was given back when the executable graph was made
    assert set(library.alive) == {stream, target, source}


def test_a_failure_names_the_function_and_what_the_number_means() -> None:
    library = HostCuda()
    library.fails["cudaMalloc"] = 1
    with pytest.raises(
        BackendError, match=r"^CUDA: cudaMalloc failed with error 2 \(out of memory\)$"
    ):
        Cuda(library).allocate(_BYTES)
    # an error that stays would be blamed on the next call
    assert library.calls == ["cudaMalloc", "cudaGetLastError"]


@pytest.mark.parametrize("failing", ["cudaStreamEndCapture", "cudaGraphInstantiateWithFlags"])
def test_a_capture_that_fails_leaves_no_graph(failing: str) -> None:
    library = HostCuda()
    cuda = Cuda(library)
    stream = cuda.create_stream()
    cuda.begin_capture(stream)
    library.fails[failing] = 1
    with pytest.raises(BackendError, match=failing):
        cuda.end_capture(stream)
    assert set(library.alive) == {stream}
