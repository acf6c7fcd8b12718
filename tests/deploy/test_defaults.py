"""A command and the function that it calls have the same defaults, those of one file."""

import inspect
from collections.abc import Callable
from typing import Any

import click
import pytest

from resdeploy.calibration import quantize
from resdeploy.deploy import build_engine, defaults, load
from resdeploy.deploy.benchmark.bench import bench
from resdeploy.deploy.cli.bench import bench as bench_command
from resdeploy.deploy.cli.conversion.build import build as build_command
from resdeploy.deploy.cli.conversion.export import export as export_command
from resdeploy.deploy.cli.conversion.quantize import quantize as quantize_command
from resdeploy.deploy.cli.predict import predict as predict_command
from resdeploy.deploy.cli.verify import verify as verify_command
from resdeploy.deploy.engine.request import BuildOptions
from resdeploy.deploy.inference.classifier import Classifier
from resdeploy.export import ExportOptions


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (export_command, "opset", defaults.OPSET),
        (quantize_command, "images", defaults.CALIBRATION_IMAGES),
        (quantize_command, "method", defaults.RANGE_METHOD),
        (quantize_command, "seed", defaults.SEED),
        (quantize_command, "trt_version", defaults.TENSORRT_CACHE_VERSION),
        (build_command, "precision", defaults.ENGINE_PRECISION),
        (build_command, "flavor", defaults.ENGINE_FLAVOR),
        (build_command, "batch", str(defaults.ENGINE_BATCH)),
        (predict_command, "batch", defaults.PREDICTION_BATCH),
        (predict_command, "top", defaults.TOP_CLASSES),
        (bench_command, "seconds", defaults.BENCH_SECONDS),
        (verify_command, "seed", defaults.SEED),
    ],
)
def test_a_commands_default_is_the_one_of_the_file(
    command: click.Command, option: str, value: object
) -> None:
    (found,) = (one for one in command.params if one.name == option)
    assert found.default == value


@pytest.mark.parametrize(
    ("function", "argument", "value"),
    [
        (quantize, "images", defaults.CALIBRATION_IMAGES),
        (quantize, "method", defaults.RANGE_METHOD),
        (build_engine, "precision", defaults.ENGINE_PRECISION),
        (build_engine, "flavor", defaults.ENGINE_FLAVOR),
        (BuildOptions, "batch", defaults.ENGINE_BATCH),
        (ExportOptions, "opset", defaults.OPSET),
        (ExportOptions, "precisions", defaults.EXPORTED_PRECISIONS),
        (Classifier.predict, "top", defaults.TOP_CLASSES),
        (Classifier.predict_many, "batch", defaults.PREDICTION_BATCH),
        (bench, "batches", defaults.BENCH_BATCHES),
        (bench, "seconds", defaults.BENCH_SECONDS),
        (load, "precision", None),
    ],
)
def test_a_functions_default_is_the_one_of_the_file(
    function: Callable[..., Any], argument: str, value: object
) -> None:
    assert inspect.signature(function).parameters[argument].default == value
