"""The same graph and preprocessing behind BentoML.

    python serving_bentoml.py BUNDLE PORT

Runs in an environment with bentoml and onnxruntime, with resdeploy (for the preprocessing) on its
path. POST /predict takes a form whose file `content` is an image or the bytes of a float32 input.
"""

import os
import sys
from pathlib import Path
from typing import Any

import bentoml
from serving_fastapi import Model

_BUNDLE = "SERVING_BUNDLE"  # for the worker, which imports this file
_THREADS = 4


# BentoML is not among the development dependencies: to mypy its names are Any
@bentoml.service(threads=_THREADS)
class Classifier:
    """Lives in a worker process, where so many requests are answered at the same time."""

    def __init__(self) -> None:
        self.model = Model(Path(os.environ[_BUNDLE]))

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]  # see above
    def predict(self, content: Path) -> dict[str, Any]:
        return self.model.answer(self.model.input_of(content.read_bytes()))[0]


if __name__ == "__main__":
    bundle, port = sys.argv[1:]
    here = Path(__file__).resolve()
    words = ["bentoml", "serve", f"{here.stem}:Classifier", "--working-dir", str(here.parent)]
    os.environ[_BUNDLE] = str(Path(bundle).resolve())
    os.execv(sys.executable, [sys.executable, "-m", *words, "--host", "127.0.0.1", "--port", port])
