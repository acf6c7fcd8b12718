"""Each target says what its files are, and each backend gets the file it runs best."""

import pytest

from resdeploy.deploy.specs import BACKENDS, PLUGIN_BACKENDS, PRECISIONS, VARIANTS
from resdeploy.deploy.targets import (
    CPU,
    INT8_VARIANTS,
    TARGETS,
    TENSORRT,
    computed_as_written,
    is_int8,
    variants_for,
)


def test_every_int8_file_belongs_to_one_target() -> None:
    made = [variant for target in TARGETS for variant in target.variants]
    assert sorted(made) == sorted(v for v in VARIANTS if v.startswith("int8"))
    assert {v for v in VARIANTS if is_int8(v)} == set(made)
    assert INT8_VARIANTS == ("int8", "int8-cpu")


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_cpu_and_plugins_read_the_file_for_the_cpu(backend: str) -> None:
    for precision in PRECISIONS:
        choices = variants_for(precision, backend)  # type: ignore[arg-type]
        assert all(variant.startswith(precision) for variant in choices)
        assert (CPU.variant in choices) == (
            precision == "int8" and (backend == "ort-cpu" or backend in PLUGIN_BACKENDS)
        )


def test_files_for_tensorrt_are_not_fused_on_the_cpu() -> None:
    assert {v for v in VARIANTS if computed_as_written(v)} == set(TENSORRT.variants)
