"""Looks for a CUDA driver through ctypes, before any native library that would crash without one.

TensorRT 11's lean runtime ends the whole process when it deserializes an engine on a machine
without CUDA, and ONNX Runtime lists its CUDA provider on machines that have no GPU: the driver
is asked first.
"""

import ctypes
from functools import lru_cache

_CUDA_SUCCESS = 0


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
