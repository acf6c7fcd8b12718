"""The same graph and preprocessing behind MLServer, as a custom runtime.

    python serving_mlserver.py BUNDLE PORT

Runs in an environment with mlserver and onnxruntime, with resdeploy (for the preprocessing) on its
path. POST /v2/models/network/infer takes JSON alone, for MLServer has no binary tensors over HTTP:
an image as base64 text, a tensor as numbers.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from server_process import free_port
from serving_fastapi import Model

_START = "from mlserver.cli import main; main()"


# MLServer is not among the development dependencies: to mypy its names are Any
class Runtime(MLModel):  # type: ignore[misc]  # see above
    """Called in a worker process."""

    async def load(self) -> bool:
        self.model = Model(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (tensor,) = payload.inputs
        if tensor.datatype == "BYTES":
            (content,) = self.decode(tensor)
            batch = self.model.input_of(content)
        else:
            batch = NumpyCodec.decode_input(tensor).astype(np.float32)
        best = [row["predictions"] for row in self.model.answer(batch)]
        labels = [label for row in best for label, _ in row]
        shares = np.array([[share for _, share in row] for row in best])
        outputs = [
            StringCodec.encode_output("labels", labels),
            NumpyCodec.encode_output("probabilities", shares),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def main() -> None:
    bundle, port = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="mlserver-"))
    ports = [free_port() for _ in range(2)]
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": int(port),
        "grpc_port": ports[0],
        "metrics_port": ports[1],
    }
    model = {
        "name": "network",
        "implementation": f"{Path(__file__).stem}.Runtime",
        "parameters": {"uri": str(Path(bundle).resolve())},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    paths = [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.execv(sys.executable, [sys.executable, "-c", _START, "start", str(folder)])


if __name__ == "__main__":
    main()
