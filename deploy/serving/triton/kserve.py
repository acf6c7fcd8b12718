"""A KServe InferenceService that lets KServe's Triton runtime serve the repository."""

import json
import re

from resdeploy.deploy.errors import InputError

# RFC 1123, what Kubernetes takes as a name
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_SERVICE = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    minReplicas: 1
    maxReplicas: 4
    scaleMetric: concurrency
    scaleTarget: 8
    model:
      runtime: kserve-tritonserver
      protocolVersion: v2
      modelFormat:
        name: triton
      storageUri: {storage_uri}
      resources:
        requests: {{cpu: "1", memory: 1Gi}}
        limits: {{cpu: "2", memory: 2Gi{gpu}}}
"""


def inference_service(name: str, storage_uri: str, *, gpu: bool) -> str:
    """The YAML of one InferenceService (serving.kserve.io/v1beta1).

    Args:
        name: of the service.
        storage_uri: where KServe finds the repository, e.g. pvc://models/repository or s3://….
        gpu: whether each replica gets an NVIDIA GPU.

    Raises:
        InputError: a name that Kubernetes does not take, or a location without a scheme.
    """
    check_name(name)
    check_storage(storage_uri)
    return _SERVICE.format(
        name=name,
        storage_uri=json.dumps(storage_uri),
        gpu=', nvidia.com/gpu: "1"' if gpu else "",
    )


def check_name(name: str) -> None:
    """Refuse a name that Kubernetes does not take."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be a service's name in Kubernetes: use lower-case letters, digits "
            "and -"
        )


def check_storage(storage_uri: str) -> None:
    """Refuse what is no URI, or would end its quotes in YAML."""
    if not re.fullmatch(r"[a-z0-9]+://[^\s\"\\]+", storage_uri):
        raise InputError(f"storage {storage_uri!r}: expected a URI such as pvc://models/repository")
