"""What is said of models: by the protocol over HTTP and gRPC, and to who started the server."""

from typing import Any

from resdeploy.deploy.serving.repository import Repository
from resdeploy.deploy.serving.served_model import ServedModel
from resdeploy.deploy.session import sizes_of

EXTENSIONS = ("binary_tensor_data", "classification", "model_repository", "schedule_policy")


def model_metadata(model: ServedModel, versions: list[str]) -> dict[str, Any]:
    """Names, datatypes and shapes of inputs and outputs; -1 stands for the batch axis."""
    spec, out = model.manifest.input, model.manifest.output
    return {
        "name": model.name,
        "versions": versions,
        "platform": f"resdeploy_{model.backend}",
        "inputs": [{"name": spec.name, "datatype": "FP32", "shape": [-1, *sizes_of(spec)]}],
        "outputs": [{"name": out.name, "datatype": "FP32", "shape": [-1, *sizes_of(out)]}],
    }


def versions_of(repository: Repository, name: str) -> list[str]:
    """The versions of a model that answer."""
    return [model.version for model in repository.ready_models() if model.name == name]


def news(repository: Repository) -> dict[object, str]:
    """A line for each model that is loaded and for each state that has a reason."""
    found: dict[object, str] = {
        model: f"ready: {model.name} version {model.version}, {model.precision} on {model.backend}"
        for model in repository.ready_models()
    }
    for state in repository.index():
        if state.reason:
            what = "not loaded again" if state.state == "READY" else "not served"
            found[state] = f"{what}: {state.name} version {state.version}: {state.reason}"
    return found
