"""Keeps what TensorRT says while it builds."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from resdeploy.deploy.engine.layer_table import Layer, is_layer_table, read_layer_table


@contextmanager
def collection_paused() -> Iterator[None]:
    """Python's garbage collector waits, in all threads; also a decorator.

    TensorRT holds a lock while it calls a logger. A collection in that call may free another
    builder or runtime, left in a cycle by an exception's traceback, which waits for that very lock:
    for ever (seen with TensorRT-RTX 1.7).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class BuildLog:
    """What TensorRT said: its errors, warnings and the layer table. `heard` is called each time."""

    def __init__(self, heard: Callable[[], None] = lambda: None) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.layers: tuple[Layer, ...] = ()
        self._heard = heard

    def logger(self, trt: Any) -> Any:
        """An ILogger of this library that writes here."""
        keep = self._keep

        class Logger(trt.ILogger):  # type: ignore[misc]  # trt is whichever module is here
            def __init__(self) -> None:
                trt.ILogger.__init__(self)  # pybind refuses super() here on 8.x

            def log(self, severity: Any, message: str) -> None:
                keep(severity.name, message)

        return Logger()

    def _keep(self, severity: str, message: str) -> None:
        self._heard()
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.errors.append(message)
        elif severity == "WARNING":
            self.warnings.append(message)
        elif is_layer_table(message):
            self.layers = read_layer_table(message)
