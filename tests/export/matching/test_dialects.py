"""The naming schemes in docs/checkpoints.md, each from the names and shapes of a real model."""

import json
from pathlib import Path

import pytest

from resdeploy.export.architectures.units import Shapes
from resdeploy.export.matching.fitting import fits

_ROOT = Path(__file__).resolve().parents[3]
_KEYS = _ROOT.parent / "shared" / "facts" / "dialect_keys"


def _rows() -> list[tuple[str, ...]]:
    page = (_ROOT / "docs" / "checkpoints.md").read_text("utf-8")
    table = page[page.index("| names of | answer |") :].splitlines()[2:]
    return [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in table]


def _shapes(dialect: str) -> Shapes:
    file = _KEYS / f"{dialect}.json"
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    return {name: tuple(shape) for name, shape in json.loads(file.read_text()).items()}


@pytest.mark.realdata
@pytest.mark.parametrize("row", _rows(), ids=lambda row: str(row[0]))
def test_the_page_says_what_is_read(row: tuple[str, ...]) -> None:
    dialect, answer, family, network, matched_by = row
    found = fits(_shapes(dialect))
    if answer == "refused":
        assert not found
        return
    (reading,) = found
    assert (reading.family.name, reading.matched_by) == (family, matched_by)
    assert reading.network.name.startswith(network.removesuffix("…)"))
    assert bool(reading.surroundings) == (answer == "encoder")


@pytest.mark.realdata
@pytest.mark.parametrize("row", _rows(), ids=lambda row: str(row[0]))
def test_residual_and_mobile_networks_are_read_without_their_names(row: tuple[str, ...]) -> None:
    dialect, answer, family, network, _ = row
    if answer != "read" or family not in ("resnet", "cifar_resnet", "mobilenet_v2"):
        pytest.skip("another family, or the encoder of a larger network")
    modules: dict[str, str] = {}
    nameless = {}
    for name, shape in _shapes(dialect).items():
        module, _, part = name.rpartition(".")
        nameless[f"{modules.setdefault(module, f'm{len(modules)}')}.{part}"] = shape
    names = [reading.network.name for reading in fits(nameless)]
    if dialect == "timm.resnetrs50":
        assert not names  # known by their names only
    else:
        assert any(name.startswith(network.removesuffix("…)")) for name in names)
        assert len(names) <= 2


def test_the_page_lists_every_dialect_there_is_a_file_of() -> None:
    if not _KEYS.is_dir():
        pytest.skip(f"{_KEYS} is not here")
    assert {row[0] for row in _rows()} == {file.stem for file in _KEYS.glob("*.json")}
