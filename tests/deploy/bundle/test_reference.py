"""`reference.npz` keeps what PyTorch said, and damage to it is noticed."""

from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from resdeploy.deploy.bundle.reference import Reference, read_reference, write_reference
from resdeploy.deploy.errors import BundleError


@pytest.fixture
def reference() -> Reference:
    random = np.random.default_rng(3)
    inputs = random.normal(size=(4, 3, 5, 6)).astype(np.float32)
    return Reference(inputs, random.normal(size=(4, 7)).astype(np.float32))


def test_round_trip(reference: Reference, tmp_path: Path) -> None:
    write_reference(tmp_path / "r.npz", reference)
    found = read_reference(tmp_path / "r.npz")
    assert np.array_equal(found.inputs, reference.inputs)
    assert np.array_equal(found.logits, reference.logits)


def test_the_same_arrays_give_the_same_bytes_at_any_time(
    reference: Reference, tmp_path: Path
) -> None:
    write_reference(tmp_path / "a.npz", reference)
    write_reference(tmp_path / "b.npz", reference)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with ZipFile(tmp_path / "a.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.slow
def test_any_flipped_byte_is_refused_or_harmless(reference: Reference, tmp_path: Path) -> None:
    file = tmp_path / "r.npz"
    write_reference(file, reference)
    whole = file.read_bytes()
    refused = 0
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= 0xFF
        file.write_bytes(content)
        try:
            found = read_reference(file)
        except BundleError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert np.array_equal(found.inputs, reference.inputs), position
            assert np.array_equal(found.logits, reference.logits), position
    assert refused > 0.8 * len(whole)


def test_what_is_no_reference(reference: Reference, tmp_path: Path) -> None:
    file = tmp_path / "r.npz"
    with pytest.raises(BundleError, match=r"r\.npz: not a readable reference .*No such file"):
        read_reference(file)
    for content in (b"", b"text", b"PK\x03\x04"):
        file.write_bytes(content)
        with pytest.raises(BundleError, match="not a readable reference"):
            read_reference(file)
    with file.open("wb") as stream:
        np.save(stream, reference.inputs)
    with pytest.raises(BundleError, match="not a readable reference"):
        read_reference(file)
    np.savez_compressed(file, inputs=np.zeros((9, 3, 999, 999), np.float32))  # 108 MB in 0.1 MB
    with pytest.raises(BundleError, match="its arrays are compressed"):
        read_reference(file)
    np.savez(file, inputs=reference.inputs)
    with pytest.raises(BundleError, match="logits"):
        read_reference(file)
    wrong = [
        Reference(reference.inputs[:2], reference.logits),
        Reference(reference.inputs[0], reference.logits),
        Reference(reference.inputs, reference.logits.astype(np.float64)),
    ]
    for content_ in wrong:
        write_reference(file, content_)
        with pytest.raises(BundleError, match=r"expected float32 \(N, 3, H, W\) and \(N, classes"):
            read_reference(file)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(
    reference: Reference, bad: float, tmp_path: Path
) -> None:
    """A distance from NaN is NaN, which a limit does not catch."""
    file = tmp_path / "r.npz"
    for name in ("inputs", "logits"):
        values = getattr(reference, name).copy()
        values.flat[3] = bad
        write_reference(file, replace(reference, **{name: values}))
        with pytest.raises(BundleError, match=f"{name} are not all finite numbers: export again"):
            read_reference(file)
