"""Which sessions a verification opens, and what each is called."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.verification.candidates import open_candidates, open_float

WriteBundle = Callable[..., Path]


@pytest.fixture
def bundle(tmp_path: Path, write_bundle: WriteBundle, identity: Float32s) -> Path:
    return write_bundle(tmp_path / "b", dict.fromkeys(("fp32", "int8", "int8-cpu"), identity))


def test_the_cpu_opens_both_int8_graphs(bundle: Path) -> None:
    with ExitStack() as stack:
        found = open_candidates(open_model(bundle), ["fp32", "int8"], ["ort-cpu"], stack)
        assert [(c.name, c.variant, c.precision) for c in found] == [
            ("fp32", "fp32", "fp32"),
            ("int8", "int8", "int8"),
            ("int8-cpu", "int8-cpu", "int8"),
        ]


def test_the_same_backend_asked_for_twice_is_opened_once(bundle: Path) -> None:
    with ExitStack() as stack:
        found = open_candidates(open_model(bundle), ["fp32"], ["ort-cpu", "ort-cpu"], stack)
        assert [c.name for c in found] == ["fp32"]


def test_the_float_graph_is_the_open_one_or_one_of_its_own(bundle: Path) -> None:
    model = open_model(bundle)
    with ExitStack() as stack:
        opened = open_candidates(model, ["fp32", "int8"], ["ort-cpu"], stack)
        assert open_float(model, opened, stack) is opened[0]
        own = open_float(model, opened[1:], stack)
        assert own is not None and own.name == "reference" and own.variant == "fp32"


def test_without_an_fp32_graph_there_is_none(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    model = open_model(write_bundle(tmp_path / "i", {"int8": identity}))
    with ExitStack() as stack:
        assert open_float(model, [], stack) is None


def test_a_precision_the_bundle_lacks_is_an_error(bundle: Path) -> None:
    with ExitStack() as stack, pytest.raises((BundleError, InputError), match="fp16"):
        open_candidates(open_model(bundle), ["fp16"], ["ort-cpu"], stack)
