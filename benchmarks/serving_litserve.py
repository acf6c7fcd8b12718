"""The same graph and preprocessing behind LitServe, with its batching.

    python serving_litserve.py BUNDLE PORT

Runs in an environment with litserve and onnxruntime, with resdeploy (for the preprocessing) on its
path. POST /predict takes a form whose file `content` is an image or the bytes of a float32 input:
LitServe reads forms and JSON only.
"""

import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from fastapi import Request
from serving_fastapi import Model

_BATCH = 8
_WAIT_S = 0.002


# LitServe is not among the development dependencies: to mypy its names are Any
class Api(litserve.LitAPI):  # type: ignore[misc]  # see above
    """Called in a worker process."""

    def setup(self, device: str) -> None:
        self.model = Model(Path(sys.argv[1]))

    def decode_request(self, request: Request) -> Any:
        return self.model.input_of(request["content"].file.read())

    def batch(self, inputs: list[Any]) -> Any:
        return np.concatenate(inputs)

    def predict(self, batch: Any) -> Any:
        return self.model.answer(batch)

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> Any:
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=_BATCH, batch_timeout=_WAIT_S)
    litserve.LitServer(api, accelerator="cpu").run(
        port=int(sys.argv[2]), log_level="warning", generate_client_file=False
    )
