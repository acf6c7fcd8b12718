"""The manifests say where and with what, and Kubernetes' own schemas have nothing against them."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.serving.triton.kserve import inference_service
from resdeploy.deploy.serving.triton.kubernetes import deployment


def _documents(storage_uri: str, *, gpu: bool = False) -> list[Any]:
    return list(yaml.safe_load_all(deployment("flowers", storage_uri, gpu=gpu)))


def test_the_deployment_mounts_the_claim_and_has_probes_and_limits() -> None:
    found, service, scaler = _documents("pvc://models/triton/repository", gpu=True)
    pod = found["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "--model-repository=/models" in container["args"]
    mount = {"name": "models", "mountPath": "/models", "subPath": "triton/repository"}
    assert {**mount, "readOnly": True} in container["volumeMounts"]
    claim = {"claimName": "models", "readOnly": True}
    assert {"name": "models", "persistentVolumeClaim": claim} in pod["volumes"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "2Gi", "nvidia.com/gpu": "1"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert service["spec"]["selector"] == found["spec"]["selector"]["matchLabels"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == found["metadata"]["name"] == "flowers"


def test_triton_reads_a_bucket_itself() -> None:
    pod = _documents("s3://bucket/repository")[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "--model-repository=s3://bucket/repository" in container["args"]
    assert "models" not in {volume["name"] for volume in pod["volumes"]}
    assert "nvidia.com/gpu" not in container["resources"]["limits"]


def test_what_cannot_work_is_refused() -> None:
    for place, reason in (
        ("hf://org/model", "Triton reads pvc://, s3://, gs:// and as://"),
        ("pvc://My_Claim/x", "'My_Claim' cannot be a service's name"),
        ('pvc://x/y"', "expected a URI such as"),
    ):
        with pytest.raises(InputError, match=reason):
            deployment("flowers", place, gpu=False)
    with pytest.raises(InputError, match="'Flowers' cannot be a service's name"):
        deployment("Flowers", "s3://b/x", gpu=False)


@pytest.mark.parametrize("version", ["1.27.0", "1.37.0"])
@pytest.mark.parametrize("storage_uri", ["pvc://models/repository", "s3://bucket/repository"])
def test_the_published_schemas_accept_it(tmp_path: Path, storage_uri: str, version: str) -> None:
    if shutil.which("kubernetes-validate") is None:
        pytest.skip("no kubernetes-validate here: pip install kubernetes-validate")
    for number, document in enumerate(_documents(storage_uri, gpu=True)):
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(document))
        found = subprocess.run(
            ["kubernetes-validate", "--strict", "-k", version, str(file)],
            capture_output=True,
            text=True,
        )
        assert found.returncode == 0, found.stdout + found.stderr


def test_the_inference_service_is_yaml_too() -> None:
    found = yaml.safe_load(inference_service("flowers", "pvc://models/repository", gpu=True))
    model = found["spec"]["predictor"]["model"]
    assert model["storageUri"] == "pvc://models/repository"
    assert model["resources"]["limits"]["nvidia.com/gpu"] == "1"
