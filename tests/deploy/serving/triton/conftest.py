"""What Triton gives the models of its Python backend."""

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def python_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """What Triton's Python backend puts beside a model, as far as ours uses it."""
    module: Any = ModuleType("triton_python_backend_utils")

    def tensor(name: str, values: Any) -> SimpleNamespace:
        return SimpleNamespace(name=name, as_numpy=lambda: values)

    def response(tensors: list[Any], error: Any = None) -> SimpleNamespace:
        return SimpleNamespace(tensors=tensors, error=error)

    module.Tensor = tensor
    module.InferenceResponse = response
    module.TritonError = str
    module.get_input_tensor_by_name = lambda request, name: request[name]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    yield module
