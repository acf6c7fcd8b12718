"""Runs in an environment of its own: asks a server with the real tritonclient, prints JSON.

python tritonclient_session.py HTTP_PORT GRPC_PORT INPUTS.npz IMAGE
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException


def ask(library: ModuleType, url: str, inputs: Any, image: bytes) -> dict[str, Any]:
    over_http = library is tritonclient.http
    client = library.InferenceServerClient(url)
    metadata = client.get_model_metadata("colours")
    answers: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready() and client.is_model_ready("colours"),
        "name": metadata["name"] if over_http else metadata.name,
        "logits": {},
        "errors": {},
    }

    def infer(tensor: Any, name: str = "input", **output: Any) -> Any:
        kind = "BYTES" if tensor.dtype == object else "FP32"
        given = library.InferInput(name, list(tensor.shape), kind)
        given.set_data_from_numpy(tensor)
        outputs = [library.InferRequestedOutput("logits", **output)] if output else None
        found = client.infer("colours", [given], outputs=outputs, priority=1, timeout=30_000_000)
        return found.as_numpy("logits")

    for batch in inputs.values():
        answers["logits"][len(batch)] = infer(batch).tolist()
        if over_http:
            given = library.InferInput("input", list(batch.shape), "FP32")
            given.set_data_from_numpy(batch, binary_data=False)
            output = library.InferRequestedOutput("logits", binary_data=False)
            found = client.infer("colours", [given], outputs=[output]).as_numpy("logits")
            assert found.tolist() == answers["logits"][len(batch)], "JSON and binary differ"
    images = np.array([image, image], dtype=object)
    answers["image"] = infer(images).tolist()
    answers["classes"] = [text.decode() for text in infer(images, class_count=2)[0]]
    first = next(iter(inputs.values()))
    wrong = {"name": (first, "x"), "shape": (first[:, :, :4], "input")}
    for what, (tensor, name) in wrong.items():
        try:
            infer(tensor, name)
        except InferenceServerException as error:
            answers["errors"][what] = [error.status(), error.message()]
    index = client.get_model_repository_index()
    models = index if over_http else index.models
    answers["index"] = [m["name"] if over_http else m.name for m in models]
    client.unload_model("colours")
    answers["unloaded"] = not client.is_model_ready("colours")
    client.load_model("colours")
    answers["loaded"] = client.is_model_ready("colours")
    client.close()
    return answers


def main() -> None:
    http_port, grpc_port, inputs, image = sys.argv[1:]
    content = Path(image).read_bytes()
    with np.load(inputs) as arrays:
        batches = dict(arrays)
    answers = {
        "http": ask(tritonclient.http, f"127.0.0.1:{http_port}", batches, content),
        "grpc": ask(tritonclient.grpc, f"127.0.0.1:{grpc_port}", batches, content),
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
