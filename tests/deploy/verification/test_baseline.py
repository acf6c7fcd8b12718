"""Baselines: saved, compared with paired, refused when they are another network's, ratcheted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.cli.verify import verify as command
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.verification.verify import verify

WriteBundle = Callable[..., Path]

_STEP = 2 / 255


def _bundle(path: Path, write_bundle: WriteBundle, identity: Float32s, flipped: int) -> Path:
    bias = {"fp32": np.array([-(flipped + 0.5) * _STEP if flipped else 0, 0, 0], np.float32)}
    return write_bundle(path, {"fp32": identity}, bias=bias)


def _run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def test_the_file_is_small_sorted_and_one_line_a_image(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = _bundle(tmp_path / "b", write_bundle, identity, 3)
    file = tmp_path / "baseline.json"
    _run(bundle, "--data", colours, "--save-baseline", file)
    fields = json.loads(file.read_text())
    assert fields["columns"] == ["truth", "fp32"]
    assert list(fields["images"]) == sorted(fields["images"])
    assert len(fields["images"]) == 300
    assert sum(row != [row[0]] * 2 for row in fields["images"].values()) == 3
    assert file.stat().st_size < 40 * 300
    again = tmp_path / "again.json"
    _run(bundle, "--data", colours, "--save-baseline", again)
    assert again.read_bytes() == file.read_bytes()


def test_a_worse_deployment_fails_against_the_baseline_alone(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    file = tmp_path / "baseline.json"
    good = _bundle(tmp_path / "good", write_bundle, identity, 0)
    _run(good, "--data", colours, "--save-baseline", file)
    worse = _bundle(tmp_path / "worse", write_bundle, identity, 40)  # fp32 itself: no drop seen
    report = verify(worse, data=colours, baseline=file)
    gate = next(gate for gate in report.gates if gate.name == "baseline")
    assert gate.verdict == "fail"
    assert gate.value == pytest.approx(100 * 40 / 300)
    assert report.baseline is not None
    found = report.baseline.to_json()["variants"]["fp32"]
    assert found["top1_baseline"] == 100 and found["flips"]["lost"] == 40
    assert found["agreement"] == pytest.approx(100 * 260 / 300, abs=1e-3)


def test_added_and_removed_and_renamed_images_are_tolerated_and_said(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    file = tmp_path / "baseline.json"
    bundle = _bundle(tmp_path / "b", write_bundle, identity, 0)
    data = tmp_path / "data"
    shutil.copytree(colours, data)
    (data / "red" / "001.png").unlink()
    _run(bundle, "--data", data, "--save-baseline", file)
    (data / "red" / "002.png").rename(data / "red" / "renamed.png")
    (data / "red" / "003.png").unlink()
    shutil.copy(colours / "red" / "001.png", data / "red")
    report = verify(bundle, data=data, baseline=file)
    assert report.baseline is not None
    counts = (report.baseline.shared, report.baseline.added, report.baseline.removed)
    assert counts == (298, 1, 1)
    assert any("298 images; new: 1, gone: 1" in text for text in report.notes)


def test_the_ratchet_moves_forward_only(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    file = tmp_path / "baseline.json"
    bundles = [_bundle(tmp_path / str(n), write_bundle, identity, n) for n in (5, 6, 2)]
    _run(bundles[0], "--data", colours, "--save-baseline", file)
    first = file.read_bytes()
    ratchet = ("--data", colours, "--baseline", file, "--update-baseline-if-better")
    _run(bundles[1], *ratchet)
    assert file.read_bytes() == first
    _run(bundles[2], *ratchet)
    assert file.read_bytes() != first


def test_a_baseline_that_cannot_be_meant_is_refused(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    file = tmp_path / "baseline.json"
    bundle = _bundle(tmp_path / "b", write_bundle, identity, 0)
    with pytest.raises(InputError, match="no such baseline"):
        verify(bundle, data=colours, baseline=file)
    _run(bundle, "--data", colours, "--save-baseline", file)
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a readable baseline"):
        verify(bundle, data=colours, baseline=file)
    for key, value in (("columns", 3), ("images", {"00": ["red"]}), ("format_version", 9)):
        file.write_text(json.dumps({**json.loads(whole), key: value}))
        with pytest.raises(InputError, match="not a readable baseline"):
            verify(bundle, data=colours, baseline=file)
    file.write_text(whole)
    with pytest.raises(InputError, match="a baseline needs the images"):
        verify(bundle, baseline=file)
    other = write_bundle(tmp_path / "o", {"fp32": identity}, labels=("a", "b", "c"))
    shutil.copytree(colours / "red", tmp_path / "data" / "a")
    with pytest.raises(InputError, match="saved with other labels"):
        verify(other, data=tmp_path / "data", baseline=file)
    file.write_text(whole.replace('"half"', '"other"'))
    with pytest.raises(InputError, match="saved with other preprocess"):
        verify(bundle, data=colours, baseline=file)
    fields = json.loads(whole)
    fields["images"] = {"0" * 16: [0, 0]}
    file.write_text(json.dumps(fields))
    with pytest.raises(InputError, match="none of the 300 images"):
        verify(bundle, data=colours, baseline=file)


def test_options_that_contradict_each_other_are_refused(tmp_path: Path, colours: Path) -> None:
    file = tmp_path / "baseline.json"
    _run("b", "--data", colours, "--baseline", file, "--save-baseline", file, code=2)
    _run("b", "--update-baseline-if-better", code=2)
    _run("b", "--save-baseline", file, code=2)
