"""The InferenceService names the runtime, the protocol and the place, and nothing impossible."""

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.serving.triton.kserve import inference_service


def test_the_service_says_where_and_with_what() -> None:
    text = inference_service("flowers", "pvc://models/repository", gpu=True)
    lines = [line.strip() for line in text.splitlines()]
    for line in (
        "apiVersion: serving.kserve.io/v1beta1",
        "kind: InferenceService",
        "name: flowers",
        "runtime: kserve-tritonserver",
        "protocolVersion: v2",
        'storageUri: "pvc://models/repository"',
        'limits: {cpu: "2", memory: 2Gi, nvidia.com/gpu: "1"}',
    ):
        assert line in lines
    assert "nvidia.com/gpu" not in inference_service("flowers", "s3://bucket/x", gpu=False)


def test_what_kubernetes_does_not_take_is_refused() -> None:
    with pytest.raises(InputError, match="'My_Flowers' cannot be a service's name"):
        inference_service("My_Flowers", "pvc://x/y", gpu=False)
    for place in ("models/repository", "pvc://two words", 'pvc://x\nkind: "y"'):
        with pytest.raises(InputError, match="expected a URI such as"):
            inference_service("flowers", place, gpu=False)


def _strict(schema: Any) -> Any:
    """A schema of Kubernetes as JSON Schema: what it would drop unsaid is refused."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _strict(value) for key, value in schema.items()}
    if found.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    if "properties" in found and not found.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


@pytest.mark.slow
def test_kserves_published_schema_accepts_it() -> None:
    file = os.environ.get("KSERVE_CRD")
    if file is None:
        pytest.skip("KSERVE_CRD names no serving.kserve.io_inferenceservices.yaml of KServe")
    versions = yaml.safe_load(Path(file).read_text())["spec"]["versions"]
    (schema,) = (one["schema"] for one in versions if one["name"] == "v1beta1")
    checked = jsonschema.Draft202012Validator(
        _strict(schema["openAPIV3Schema"]["properties"]["spec"])
    )
    for gpu in (False, True):
        spec = yaml.safe_load(inference_service("flowers", "pvc://models/x", gpu=gpu))["spec"]
        checked.validate(spec)
    spec["predictor"]["model"]["storageURI"] = spec["predictor"]["model"].pop("storageUri")
    with pytest.raises(jsonschema.ValidationError, match="storageURI"):
        checked.validate(spec)
