"""Execution providers that come as packages of their own and are loaded into ONNX Runtime.

    ort:openvino         pip install onnxruntime-ep-openvino
    ort:tensorrt-rtx     pip install onnxruntime-ep-nv-tensorrt-rtx
    ort:webgpu           pip install onnxruntime-ep-webgpu
    ort:qnn              pip install onnxruntime-qnn

All of them keep to one contract (ONNX Runtime 1.23 and later): the package knows the path of its
library and the name of its provider, ONNX Runtime loads the library once and lists its devices.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType

import onnxruntime as ort

from resdeploy.deploy.errors import BackendError, first_line
from resdeploy.deploy.ort import load_session
from resdeploy.deploy.specs import Backend


@dataclass(frozen=True)
class Plugin:
    """A package, its module, and what its provider must be told."""

    package: str
    module: str
    options: Mapping[str, str] = field(default_factory=dict)


# Precision lives in the graph: where a CPU has bfloat16, OpenVINO would compute float32 in it.
_AS_WRITTEN = {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}'}

PLUGINS: dict[Backend, Plugin] = {
    "ort:openvino": Plugin("onnxruntime-ep-openvino", "onnxruntime_ep_openvino", _AS_WRITTEN),
    "ort:tensorrt-rtx": Plugin("onnxruntime-ep-nv-tensorrt-rtx", "onnxruntime_ep_nv_tensorrt_rtx"),
    "ort:webgpu": Plugin("onnxruntime-ep-webgpu", "onnxruntime_ep_webgpu"),
    "ort:qnn": Plugin("onnxruntime-qnn", "onnxruntime_qnn"),
}
# nodes that a provider does not take would run on the CPU, and its name stand for their speed
_WHOLE_GRAPH = ("session.disable_cpu_ep_fallback", "1")


def open_on_plugin(
    graph: Path | bytes, backend: Backend, options: ort.SessionOptions
) -> ort.InferenceSession:
    """ONNX Runtime's session of a graph, the whole of it on the plugin's provider.

    Raises:
        BackendError: the provider is not usable here.
        BundleError, GraphError: as `ort.open_graph`; also where the provider does not take all.
    """
    name = _use_plugin(options, backend)
    session = load_session(graph, options, None)
    if name not in session.get_providers():
        raise BackendError(f"backend {backend}: {name} does not start on this machine")
    return session


def _use_plugin(options: ort.SessionOptions, backend: Backend) -> str:
    """Make `options` run the whole graph on the plugin's provider; returns the provider's name.

    Raises:
        BackendError: the package is missing, does not fit this ONNX Runtime, or finds no device.
    """
    module = _module(backend)
    try:
        name = str(module.get_ep_name())
        devices = _devices(name)
        if not devices:
            ort.register_execution_provider_library(name, str(module.get_library_path()))
            devices = _devices(name)
    except Exception as error:  # whatever the package and ONNX Runtime raise
        raise BackendError(
            f"backend {backend}: {PLUGINS[backend].package} does not load into onnxruntime "
            f"{ort.__version__}: {first_line(error)}"
        ) from error
    if not devices:
        raise BackendError(f"backend {backend}: {name} finds no device on this machine")
    options.add_session_config_entry(*_WHOLE_GRAPH)
    options.add_provider_for_devices(devices[:1], dict(PLUGINS[backend].options))
    return name


def _devices(name: str) -> list[ort.OrtEpDevice]:
    return [device for device in ort.get_ep_devices() if device.ep_name == name]


def _module(backend: Backend) -> ModuleType:
    plugin = PLUGINS[backend]
    if not hasattr(ort, "get_ep_devices"):
        raise BackendError(
            f"backend {backend}: onnxruntime {ort.__version__} loads no plugins, expected 1.23 or "
            "newer: pip install -U onnxruntime"
        )
    try:
        return import_module(plugin.module)
    except ImportError as error:
        raise BackendError(
            f"backend {backend}: {plugin.package} is not installed: pip install {plugin.package}"
        ) from error
