"""`resdeploy triton` from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.cli.triton import triton


def test_the_command_writes_a_repository_and_a_service(
    tmp_path: Path, write_bundle: Callable[..., Path], identity: Float32s
) -> None:
    bundle = write_bundle(tmp_path / "colours.bundle", {"fp32": np.copy(identity)})
    output, service = tmp_path / "repository", tmp_path / "service.yaml"
    arguments = [str(bundle), "-o", str(output), "--json", "--kserve", str(service)]
    result = CliRunner().invoke(triton, arguments)
    assert result.exit_code == 2 and "go together" in result.output
    result = CliRunner().invoke(triton, [*arguments, "--storage-uri", "pvc://models/repository"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {
        "repository": str(output),
        "models": ["colours", "colours_images", "colours_preprocess"],
    }
    assert (output / "colours" / "1" / "model.onnx").is_file()
    assert "name: colours" in service.read_text()
    manifests = tmp_path / "colours.yaml"
    words = [str(bundle), "-o", str(tmp_path / "other"), "--k8s", str(manifests)]
    result = CliRunner().invoke(triton, [*words, "--storage-uri", "s3://bucket/other"])
    assert result.exit_code == 0, result.output
    assert "--model-repository=s3://bucket/other" in manifests.read_text()
