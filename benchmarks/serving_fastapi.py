"""The usual server one writes oneself: the same graph and preprocessing behind FastAPI.

    python serving_fastapi.py BUNDLE PORT

Runs in an environment with fastapi, uvicorn and onnxruntime, with resdeploy (for the preprocessing)
on its path. POST /predict takes the bytes of an image, POST /tensor those of one float32 input.
"""

import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from resdeploy.deploy.images.preprocess import Preprocess


class Model:
    """ONNX Runtime as it is opened without further thought, and the bundle's preprocessing."""

    def __init__(self, bundle: Path) -> None:
        manifest = json.loads((bundle / "manifest.json").read_text())
        self.labels = manifest["labels"]
        self.preprocess = Preprocess.from_json(manifest["preprocess"], source="manifest")
        self.session = onnxruntime.InferenceSession(
            bundle / "fp32.onnx", providers=["CPUExecutionProvider"]
        )

    def pixels(self, body: bytes) -> Any:
        return self.preprocess.apply(Image.open(BytesIO(body)).convert("RGB"))[None]

    def tensor(self, body: bytes) -> Any:
        height, width = self.preprocess.input_size_px
        return np.frombuffer(body, np.float32).reshape(1, 3, height, width)

    def input_of(self, body: bytes) -> Any:
        """An image or the bytes of a tensor, told apart by their length."""
        size = 3 * 4 * np.prod(self.preprocess.input_size_px)
        return self.tensor(body) if len(body) == size else self.pixels(body)

    def answer(self, batch: Any) -> list[dict[str, Any]]:
        (logits,) = self.session.run(None, {"input": batch})
        return [self.best(row) for row in logits]

    def best(self, logits: Any) -> dict[str, Any]:
        powers = np.exp(logits - logits.max())
        order = np.argsort(-logits)[:5]
        shares = powers / powers.sum()
        return {"predictions": [(self.labels[i], float(shares[i])) for i in order]}


def serve_fastapi(model: Model, port: int) -> None:
    import uvicorn
    from fastapi import Body, FastAPI

    app = FastAPI()
    anything = Body(media_type="application/octet-stream")

    # plain functions: FastAPI runs them in its threads, so that decoding does not stop the loop
    # FastAPI is not among the development dependencies: to mypy its names are Any
    @app.post("/predict")  # type: ignore[untyped-decorator]  # see above
    def predict(body: bytes = anything) -> dict[str, Any]:
        return model.answer(model.pixels(body))[0]

    @app.post("/tensor")  # type: ignore[untyped-decorator]  # see above
    def tensor(body: bytes = anything) -> dict[str, Any]:
        return model.answer(model.tensor(body))[0]

    uvicorn.run(app, port=port, log_level="warning")


def main() -> None:
    bundle, port = sys.argv[1:]
    serve_fastapi(Model(Path(bundle)), int(port))


if __name__ == "__main__":
    main()
