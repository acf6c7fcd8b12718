"""What must exist on every machine: preprocessing, bundles, sessions, prediction.

    from resdeploy.deploy import load
    classifier = load("resnext50.bundle", precision="fp32", backend="auto")
    classifier.predict("tulip.jpg")

The names below are loaded when they are first used, so importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from resdeploy.deploy.optional import lazy_names

if TYPE_CHECKING:
    from resdeploy.deploy.assertions import assert_accuracy as assert_accuracy
    from resdeploy.deploy.bundle import read_bundle as read_bundle
    from resdeploy.deploy.classifier import Classifier as Classifier
    from resdeploy.deploy.classifier import Prediction as Prediction
    from resdeploy.deploy.classifier import load as load
    from resdeploy.deploy.engine import build_engine as build_engine
    from resdeploy.deploy.errors import ResdeployError as ResdeployError
    from resdeploy.deploy.preprocess import Preprocess as Preprocess
    from resdeploy.deploy.verification import verify as verify

_HOMES = {
    "build_engine": "engine",
    "Classifier": "classifier",
    "Prediction": "classifier",
    "load": "classifier",
    "Preprocess": "preprocess",
    "ResdeployError": "errors",
    "assert_accuracy": "assertions",
    "read_bundle": "bundle",
    "verify": "verification",
}

__all__ = [
    "Classifier",
    "Prediction",
    "Preprocess",
    "ResdeployError",
    "assert_accuracy",
    "build_engine",
    "load",
    "read_bundle",
    "verify",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
