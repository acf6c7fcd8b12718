"""How each TensorRT is imported, and the way of typing that its flags show."""

from types import SimpleNamespace
from typing import Any

import pytest

from resdeploy.deploy.engine.flavor import (
    FLAVORS,
    VARIANTS_READ,
    import_tensorrt,
    is_installed,
    missing_message,
    network_flags,
    typing_of,
    version_numbers,
)
from resdeploy.deploy.errors import EngineError, MissingDependencyError
from resdeploy.deploy.installation import install_command


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_flavor_is_imported_or_the_command_that_installs_it_is_named(flavor: Any) -> None:
    if is_installed(flavor):
        assert version_numbers(import_tensorrt(flavor))[0] >= 1
        return
    with pytest.raises(MissingDependencyError) as caught:
        import_tensorrt(flavor)
    assert caught.value.exit_code == 4
    assert str(caught.value) == missing_message(flavor)
    assert install_command(flavor) in str(caught.value)


@pytest.mark.parametrize("asked", [False, True])
def test_the_way_of_typing_is_read_from_the_flags(library: Any, asked: bool) -> None:
    major = version_numbers(library.module)[0]
    if library.flavor == "tensorrt" and major == 8 and asked:
        words = r"TensorRT 8\.6\.1 has no strongly typed networks .*without --strongly-typed"
        with pytest.raises(EngineError, match=words):
            typing_of(library.module, strongly_typed=asked)
        return
    typing = typing_of(library.module, strongly_typed=asked)
    has_choice = library.flavor == "tensorrt" and major == 10
    always_strong = library.flavor == "tensorrt-rtx" or major >= 11
    assert typing == ("strong" if always_strong or (has_choice and asked) else "weak")
    flags = network_flags(library.module, typing)
    if major == 8:
        assert flags == 1  # explicit batch
    else:
        assert flags == (2 if has_choice and asked else 0)


def test_the_graph_that_each_way_reads() -> None:
    """Weak typing takes half precision from a flag, strong typing from the graph."""
    assert VARIANTS_READ["weak"]["fp16"] == ("fp32",)
    assert VARIANTS_READ["strong"]["fp16"] == ("fp16",)
    assert VARIANTS_READ["weak"]["int8"] == ("int8",)
    assert VARIANTS_READ["strong"]["int8"] == ("int8-fp16", "int8")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("8.6.1", (8, 6, 1)), ("11.0.0.114", (11, 0, 0, 114)), ("10.3.0.post12.dev1", (10, 3, 0, 12))],
)
def test_versions_are_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(SimpleNamespace(__version__=text)) == numbers
