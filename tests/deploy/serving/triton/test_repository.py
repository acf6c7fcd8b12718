"""A repository that Triton's own protobuf reads, with the bundle's graph, labels and images."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.reference import read_reference
from resdeploy.deploy.errors import EngineError, InputError
from resdeploy.deploy.serving.repository import sources
from resdeploy.deploy.serving.triton.repository import TritonOptions, write_repository

_PYTHON = os.environ.get("TRITONCLIENT_PYTHON", sys.executable)
_CPU = TritonOptions("ort-cpu", instances=2, max_batch=8, max_wait_ms=1.5)


def _configs(repository: Path) -> dict[str, Any]:
    program = Path(__file__).with_name("model_configs.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [_PYTHON, str(program), str(repository)], capture_output=True, text=True, env=environment
    )
    if "No module named 'tritonclient'" in result.stderr:
        pytest.skip("no tritonclient[grpc] in TRITONCLIENT_PYTHON's environment")
    assert result.returncode == 0, result.stderr
    configs: dict[str, Any] = json.loads(result.stdout)
    return configs


def test_tritons_protobuf_reads_what_was_meant(tmp_path: Path, colours_bundle: Path) -> None:
    names = write_repository(sources([colours_bundle]), tmp_path / "repository", _CPU)
    assert names == ("colours", "colours_images", "colours_preprocess")
    configs = _configs(tmp_path / "repository")
    network = configs["colours"]
    assert (network["backend"], network["max_batch_size"]) == ("onnxruntime", 8)
    assert network["input"] == [
        {"name": "input", "data_type": "TYPE_FP32", "dims": ["3", "8", "8"]}
    ]
    assert network["output"] == [
        {
            "name": "logits",
            "data_type": "TYPE_FP32",
            "dims": ["3"],
            "label_filename": "labels.txt",
        }
    ]
    assert network["instance_group"] == [{"count": 2, "kind": "KIND_CPU"}]
    assert network["dynamic_batching"]["max_queue_delay_microseconds"] == "1500"
    assert network["parameters"] == {"intra_op_thread_count": {"string_value": "1"}}
    (warm_up,) = network["model_warmup"]
    assert warm_up["inputs"]["input"]["input_data_file"] == "input"
    first, second = configs["colours_images"]["ensemble_scheduling"]["step"]
    assert first["output_map"]["input"] == second["input_map"]["input"] == "pixels"
    assert (first["model_name"], second["model_name"]) == ("colours_preprocess", "colours")
    assert configs["colours_preprocess"]["backend"] == "python"


def test_the_files_are_the_bundles(tmp_path: Path, colours_bundle: Path) -> None:
    repository = tmp_path / "repository"
    write_repository(sources([colours_bundle], ("int8",)), repository, _CPU)
    home = repository / "colours"
    graph = (home / "1" / "model.onnx").read_bytes()
    assert graph == (colours_bundle / "int8.onnx").read_bytes()
    assert (home / "labels.txt").read_text().splitlines() == ["red", "green", "blue"]
    warm_up = np.frombuffer((home / "warmup" / "input").read_bytes(), "<f4").reshape(3, 8, 8)
    np.testing.assert_array_equal(
        warm_up, read_reference(colours_bundle / "reference.npz").inputs[0]
    )
    assert list(repository.parent.glob(".repository*")) == []


def test_the_python_backend_has_the_graph_and_a_model_beside_it(
    tmp_path: Path, colours_bundle: Path
) -> None:
    repository = tmp_path / "repository"
    options = TritonOptions("python", instances=2, max_batch=8, max_wait_ms=1.5)
    write_repository(sources([colours_bundle]), repository, options)
    config = _configs(repository)["colours"]
    assert config["backend"] == "python"
    assert config["instance_group"] == [{"count": 2, "kind": "KIND_CPU"}]
    names = {file.name for file in (repository / "colours" / "1").iterdir()}
    assert names == {"model.onnx", "model.py"}


def test_versions_and_gpus(
    tmp_path: Path, write_bundle: Callable[..., Path], identity: Float32s, rotated: Float32s
) -> None:
    folder = tmp_path / "colours"
    folder.mkdir()
    write_bundle(folder / "1", {"fp32": identity})
    write_bundle(folder / "2", {"fp32": rotated})
    options = TritonOptions("ort-tensorrt", instances=1, max_batch=4, max_wait_ms=0)
    write_repository(sources([folder]), tmp_path / "repository", options)
    assert sorted(p.name for p in (tmp_path / "repository" / "colours").iterdir()) == [
        "1",
        "2",
        "config.pbtxt",
        "labels.txt",
        "warmup",
    ]
    network = _configs(tmp_path / "repository")["colours"]
    assert network["instance_group"] == [{"count": 1, "kind": "KIND_GPU"}]
    accelerators = network["optimization"]["execution_accelerators"]
    assert accelerators["gpu_execution_accelerator"] == [{"name": "tensorrt"}]


def test_what_cannot_be_written_is_refused(tmp_path: Path, colours_bundle: Path) -> None:
    engine = TritonOptions("tensorrt", instances=1, max_batch=8, max_wait_ms=0)
    with pytest.raises(EngineError, match=r"no fp32 engine in it: run resdeploy build .* on the"):
        write_repository(sources([colours_bundle]), tmp_path / "repository", engine)
    assert not (tmp_path / "repository").exists() and list(tmp_path.glob(".rep*")) == []
    odd = colours_bundle.rename(tmp_path / "two words.bundle")
    with pytest.raises(InputError, match="'two words' cannot be a model's name in Triton"):
        write_repository(sources([odd]), tmp_path / "repository", _CPU)
    with pytest.raises(InputError, match="exists already"):
        write_repository(sources([odd]), tmp_path, _CPU)
