"""What must exist on every machine: preprocessing, bundles, sessions, prediction.

    from resdeploy.deploy import load
    classifier = load("resnext50.bundle", precision="fp32", backend="auto")
    classifier.predict("tulip.jpg")

The names below are loaded when they are first used, so importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from resdeploy.deploy.optional import lazy_names

if TYPE_CHECKING:
    from resdeploy.deploy.bundle.bundle import read_bundle as read_bundle
    from resdeploy.deploy.engine.build import build_engine as build_engine
    from resdeploy.deploy.errors import ResdeployError as ResdeployError
    from resdeploy.deploy.images.preprocess import Preprocess as Preprocess
    from resdeploy.deploy.inference.classifier import Classifier as Classifier
    from resdeploy.deploy.inference.classifier import load as load
    from resdeploy.deploy.inference.prediction import Prediction as Prediction
    from resdeploy.deploy.serving.ray_serve import ray_serve_app as ray_serve_app
    from resdeploy.deploy.verification.assertions import assert_accuracy as assert_accuracy
    from resdeploy.deploy.verification.verify import verify as verify

_HOMES = {
    "build_engine": "engine.build",
    "Classifier": "inference.classifier",
    "Prediction": "inference.prediction",
    "load": "inference.classifier",
    "Preprocess": "images.preprocess",
    "ResdeployError": "errors",
    "ray_serve_app": "serving.ray_serve",
    "assert_accuracy": "verification.assertions",
    "read_bundle": "bundle.bundle",
    "verify": "verification.verify",
}

__all__ = [
    "Classifier",
    "Prediction",
    "Preprocess",
    "ResdeployError",
    "assert_accuracy",
    "build_engine",
    "load",
    "ray_serve_app",
    "read_bundle",
    "verify",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
