"""Writes a model repository for NVIDIA Triton from bundles.

    flowers/                the network: config.pbtxt, labels.txt, warmup/input, 1/model.onnx
    flowers_preprocess/     Triton's Python backend: encoded images to the network's input
    flowers_images/         an ensemble of both: encoded images to logits

Everything is written beside `output` and moved there at the end: no half of it is ever seen.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from resdeploy.deploy.bundle.model import Model, open_model, recorded_reference
from resdeploy.deploy.engine.sidecar import Sidecar, read_plan, read_sidecar
from resdeploy.deploy.engine.store import engines_folder
from resdeploy.deploy.errors import EngineError, InputError
from resdeploy.deploy.serving.limits import Limits
from resdeploy.deploy.serving.served_model import Source
from resdeploy.deploy.serving.triton.config_text import Constant, config_text
from resdeploy.deploy.session import sizes_of
from resdeploy.deploy.specs import Precision
from resdeploy.deploy.temporaries import temporary_folder

TritonBackend = Literal["ort-cpu", "ort-cuda", "ort-tensorrt", "tensorrt", "python"]

_IMAGE = "image"
# backends that Triton calls the same
_OWN_NAMES = ("tensorrt", "python")
_CPU, _GPU = Constant("KIND_CPU"), Constant("KIND_GPU")
_PLAIN_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


@dataclass(frozen=True)
class TritonOptions:
    """How Triton is to run the networks.

    Attributes:
        backend: what runs them; tensorrt takes the engine that `resdeploy build` left, python
            is Triton's Python backend with ONNX Runtime on the CPU.
        instances: of each network on each device.
        max_batch: images of one inference; an engine may set a lower limit.
        max_wait_ms: how long requests wait for each other.
    """

    backend: TritonBackend
    instances: int
    max_batch: int
    max_wait_ms: float


def write_repository(
    found: Sequence[Source], output: Path, options: TritonOptions
) -> tuple[str, ...]:
    """Write the repository; the names of the models in it.

    Raises:
        InputError: `output` exists, or a name that Triton cannot have.
        BundleError, EngineError: a bundle lacks what is to be served, or was altered.
    """
    if output.exists():
        raise InputError(f"{output}: exists already: choose another folder with -o")
    if not output.parent.is_dir():
        raise InputError(f"{output}: no folder {output.parent}: make it first")
    with temporary_folder(output) as staging:
        for source in found:
            _write_source(staging, source, options)
        staging.rename(output)
    return tuple(sorted(folder.name for folder in output.iterdir()))


def _write_source(folder: Path, source: Source, options: TritonOptions) -> None:
    if not set(source.name) <= _PLAIN_NAME:
        raise InputError(
            f"{source.path}: {source.name!r} cannot be a model's name in Triton: use letters, "
            "digits, _ . and -"
        )
    home = folder / source.name
    for version, path in source.versions().items():
        model = open_model(path)
        if model.manifest.features:
            raise InputError(
                f"{path}: a backbone, whose feature maps are not served: copy its ONNX file into "
                "a repository of your own"
            )
        precision = model.precision if source.precision in (None, "auto") else source.precision
        (home / version).mkdir(parents=True)
        # the newest version comes last, and its configuration stays
        limit = _copy_network(home / version, model, precision, options)
        network = _network_config(source.name, model, limit, options)
    (home / "config.pbtxt").write_text(config_text(network), encoding="utf-8")
    labels = model.manifest.labels
    if labels:
        lines = "".join(f"{' '.join(label.split())}\n" for label in labels)
        (home / "labels.txt").write_text(lines, encoding="utf-8")
    if "model_warmup" in network:
        (home / "warmup").mkdir()
        (home / "warmup" / "input").write_bytes(_warm_up_input(model))
    _write_images(folder, source.name, model, limit)


def _copy_network(folder: Path, model: Model, precision: Any, options: TritonOptions) -> int:
    """Put the graph or engine in its place; the most images it takes at once."""
    if options.backend == "tensorrt":
        path, sidecar = _only_engine(model, precision)
        (folder / "model.plan").write_bytes(read_plan(path))
        return min(options.max_batch, sidecar.options.batch.max)
    backend = "ort-cpu" if options.backend == "python" else options.backend
    shutil.copyfile(model.graph(model.variant_for(precision, backend)), folder / "model.onnx")
    if options.backend == "python":
        shutil.copyfile(Path(__file__).with_name("network_model.py"), folder / "model.py")
    return options.max_batch


def _only_engine(model: Model, precision: Precision) -> tuple[Path, Sidecar]:
    folder = engines_folder(model)
    engines = sorted(folder.glob(f"{precision}-tensorrt-[0-9]*.engine"))
    if model.is_engine:
        engines = [model.path]
    build = f"resdeploy build {model.path} --precision {precision}"
    if not engines:
        raise EngineError(f"{model.path}: no {precision} engine in it: run {build} on the target")
    if len(engines) > 1:
        names = ", ".join(engine.name for engine in engines)
        raise EngineError(f"{folder}: {len(engines)} {precision} engines ({names}): keep one")
    sidecar = read_sidecar(engines[0])
    if sidecar.options.batch.min > 1:
        raise EngineError(
            f"{engines[0]}: its smallest batch is {sidecar.options.batch.min}, Triton needs 1: "
            f"run {build} --batch 1:8:32"
        )
    return engines[0], sidecar


def _network_config(
    name: str, model: Model, max_batch: int, options: TritonOptions
) -> dict[str, Any]:
    spec, out = model.manifest.input, model.manifest.output
    output = {"name": out.name, "data_type": Constant("TYPE_FP32"), "dims": list(sizes_of(out))}
    if model.manifest.labels:
        output["label_filename"] = "labels.txt"
    kind = _CPU if options.backend in ("ort-cpu", "python") else _GPU
    wait_us = round(1000 * options.max_wait_ms)
    config: dict[str, Any] = {
        "name": name,
        "backend": options.backend if options.backend in _OWN_NAMES else "onnxruntime",
        "max_batch_size": max_batch,
        "input": [
            {
                "name": spec.name,
                "data_type": Constant("TYPE_FP32"),
                "dims": list(sizes_of(spec)),
            }
        ],
        "output": [output],
        "instance_group": [{"count": options.instances, "kind": kind}],
        "dynamic_batching": {"max_queue_delay_microseconds": wait_us},
    }
    if options.backend == "ort-cpu" and options.instances > 1:
        # as many runs as instances: more threads in each would only take each other's cores
        config["parameters"] = [{"key": "intra_op_thread_count", "value": {"string_value": "1"}}]
    if options.backend == "ort-tensorrt":
        config["optimization"] = {
            "execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]}
        }
    if recorded_reference(model) is not None:
        config["model_warmup"] = [_warm_up(spec.name, sizes_of(spec))]
    return config


def _warm_up(name: str, sizes: Sequence[int]) -> dict[str, Any]:
    """The first reference image: Triton is ready once the network has answered it."""
    value = {
        "data_type": Constant("TYPE_FP32"),
        "dims": list(sizes),
        "input_data_file": "input",
    }
    return {
        "name": "reference",
        "batch_size": 1,
        "inputs": [{"key": name, "value": value}],
    }


def _warm_up_input(model: Model) -> bytes:
    reference = recorded_reference(model)
    assert reference is not None, "asked only where there is one"
    return np.ascontiguousarray(reference.inputs[0], "<f4").tobytes()


def _write_images(folder: Path, name: str, model: Model, max_batch: int) -> None:
    """Write the Python model that preprocesses and the ensemble of both."""
    home = folder / f"{name}_preprocess"
    (home / "1").mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name("preprocess_model.py"), home / "1" / "model.py")
    (home / "config.pbtxt").write_text(config_text(_preprocess_config(name, model, max_batch)))
    ensemble = folder / f"{name}_images"
    (ensemble / "1").mkdir(parents=True)  # Triton wants a version, though it is empty
    (ensemble / "config.pbtxt").write_text(config_text(_ensemble_config(name, model, max_batch)))
    if model.manifest.labels:
        shutil.copyfile(folder / name / "labels.txt", ensemble / "labels.txt")


def _preprocess_config(name: str, model: Model, max_batch: int) -> dict[str, Any]:
    spec = model.manifest.input
    parameters = {
        "preprocess": json.dumps(model.manifest.preprocess.to_json()),
        "max_pixels": str(Limits().pixels),
    }
    return {
        "name": f"{name}_preprocess",
        "backend": "python",
        "max_batch_size": max_batch,
        "input": [{"name": _IMAGE, "data_type": Constant("TYPE_STRING"), "dims": [1]}],
        "output": [
            {"name": "input", "data_type": Constant("TYPE_FP32"), "dims": list(sizes_of(spec))}
        ],
        "instance_group": [{"count": 1, "kind": _CPU}],
        "parameters": [
            {"key": key, "value": {"string_value": value}} for key, value in parameters.items()
        ],
    }


def _ensemble_config(name: str, model: Model, max_batch: int) -> dict[str, Any]:
    spec, out = model.manifest.input, model.manifest.output
    output = {"name": out.name, "data_type": Constant("TYPE_FP32"), "dims": list(sizes_of(out))}
    if model.manifest.labels:
        output["label_filename"] = "labels.txt"
    steps = [
        {
            "model_name": f"{name}_preprocess",
            "model_version": -1,
            "input_map": [{"key": _IMAGE, "value": _IMAGE}],
            "output_map": [{"key": "input", "value": "pixels"}],
        },
        {
            "model_name": name,
            "model_version": -1,
            "input_map": [{"key": spec.name, "value": "pixels"}],
            "output_map": [{"key": out.name, "value": out.name}],
        },
    ]
    return {
        "name": f"{name}_images",
        "platform": "ensemble",
        "max_batch_size": max_batch,
        "input": [{"name": _IMAGE, "data_type": Constant("TYPE_STRING"), "dims": [1]}],
        "output": [output],
        "ensemble_scheduling": {"step": steps},
    }
