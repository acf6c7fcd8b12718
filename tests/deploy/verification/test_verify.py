"""`verify` end to end, with real graphs in ONNX Runtime and flips that can be counted by hand.

Margins are (k + 1) / 255 * 2 = (k + 1) * 0.00784 of a logit, so a bias of b against a class flips
its images with (k + 1) * 0.00784 < b.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import read_bundle, write_manifest
from resdeploy.deploy.bundle.reference import Reference, read_reference, write_reference
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.images.dataset import read_data
from resdeploy.deploy.verification.verify import verify
from tests.in_turn import InTurn

WriteBundle = Callable[..., Path]

_STEP = 2 / 255


def _against_red(images: float) -> Float32s:
    """A bias that flips the `images` red images of smallest margin (to green)."""
    return np.array([-(images + 0.5) * _STEP, 0, 0], np.float32)


def test_figures_are_those_counted_by_hand(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    weights = {"fp32": identity, "int8": identity}
    bundle = write_bundle(tmp_path / "b", weights, bias={"int8": _against_red(6)})
    report = verify(bundle, data=colours, backends=["ort-cpu"])
    found = report.to_json()["variants"]
    assert found["fp32"]["top1"] == 100 and found["fp32"]["drop"] is None
    assert found["fp32"]["is_reference"] and found["int8"]["drop_against"] == "fp32.onnx"
    assert found["int8"]["images"] == 300
    assert found["int8"]["top1_reference"] == 100
    assert found["int8"]["top1"] == found["int8"]["agreement"] == 98
    assert found["int8"]["drop"] == 2
    low, high = found["int8"]["drop_ci95"]
    assert 0.3 < low < 2 < high < 4.5
    assert found["int8"]["mcnemar_p"] == pytest.approx(2 / 2**6)
    assert found["int8"]["flips"] == {"lost": 6, "gained": 0, "changed": 0}
    assert found["int8"]["max_abs"] == pytest.approx(6.5 * _STEP, rel=1e-3)
    worst = found["int8"]["classes"][0]
    assert (worst["index"], worst["images"], worst["drop"]) == (0, 100, 6)
    assert worst["p_holm"] == pytest.approx(3 * 2 / 2**6, rel=1e-3)  # three classes, Holm


@pytest.mark.parametrize(
    ("flipped", "max_drop", "verdict"),
    [(0, 1, "pass"), (6, 5, "pass"), (6, 2, "inconclusive"), (30, 5, "fail"), (0, 0, "pass")],
)
def test_the_verdict_follows_the_interval(
    tmp_path: Path,
    write_bundle: WriteBundle,
    identity: Float32s,
    colours: Path,
    flipped: int,
    max_drop: float,
    verdict: str,
) -> None:
    bias = _against_red(flipped) if flipped else np.zeros(3, np.float32)
    bundle = write_bundle(tmp_path / "b", {"fp32": identity, "int8": identity}, bias={"int8": bias})
    report = verify(bundle, data=colours, max_drop=max_drop)
    assert report.verdict == verdict
    (gate,) = (g for g in report.gates if g.name == "max-drop" and g.variant == "int8")
    assert gate.verdict == verdict
    assert (gate.images_needed is not None) == (verdict == "inconclusive" and flipped != 6)
    strict = verify(bundle, data=colours, max_drop=max_drop, strict=True)
    assert strict.verdict == ("pass" if verdict == "pass" else "fail")


def test_few_images_are_not_enough_unless_the_networks_are_numerically_equal(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    rough = np.array([0, 0.2, 0], np.float32)  # large against margins, flips nothing below
    bundle = write_bundle(
        tmp_path / "b",
        {"fp32": identity, "fp16": identity, "int8": identity},
        bias={"int8": rough},
        reference=False,
    )
    few = tmp_path / "few"
    for label, numbers in (("red", (60, 70, 80)), ("green", (60, 70, 80))):
        (few / label).mkdir(parents=True)
        for number in numbers:
            shutil.copy(colours / label / f"{number:03d}.png", few / label)
    report = verify(bundle, data=few)
    by_name = {variant.name: variant.verdict for variant in report.variants}
    assert by_name == {"fp32": "pass", "fp16": "pass", "int8": "inconclusive"}
    (gate,) = (g for g in report.gates if g.verdict == "inconclusive")
    assert gate.images_needed is not None and 100 < gate.images_needed < 1000
    assert "too few images" in gate.sentence


def test_both_int8_graphs_are_verified_on_the_cpu(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    weights = dict.fromkeys(("fp32", "int8", "int8-cpu"), identity)
    report = verify(write_bundle(tmp_path / "b", weights), data=colours, precisions=["int8"])
    assert [variant.name for variant in report.variants] == ["int8", "int8-cpu"]
    assert "fp32.onnx" in report.reference


def test_a_file_that_nothing_here_runs_is_checked_all_the_same(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    weights = dict.fromkeys(("fp32", "int8", "int8-fp16"), identity)
    bundle = write_bundle(tmp_path / "b", weights)
    said = "not run, only compared with the manifest's SHA-256: int8-fp16.onnx"
    assert said in verify(bundle, backends=["ort-cpu"]).notes
    file = bundle / "int8-fp16.onnx"
    whole = file.read_bytes()
    for content in (whole[:-1] + b"x", b""):
        file.write_bytes(content)
        with pytest.raises(BundleError, match=r"int8-fp16\.onnx: altered since it was written"):
            verify(bundle, precisions=["fp32"])
    file.unlink()
    with pytest.raises(BundleError, match=r"int8-fp16\.onnx: missing, though the manifest lists"):
        verify(bundle)


def test_without_images_pytorchs_recorded_answers_decide(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    weights = {"fp32": identity, "int8": -identity}
    report = verify(write_bundle(tmp_path / "b", weights))
    found = report.to_json()
    assert found["variants"]["fp32"]["images"] == 8
    assert found["variants"]["fp32"]["top1"] is None and found["variants"]["fp32"]["drop"] is None
    assert found["variants"]["fp32"]["verdict"] == "pass"
    assert found["variants"]["int8"]["verdict"] == "fail"
    assert found["verdict"] == "fail"
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_always_fail_and_name_the_image(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path, value: float
) -> None:
    broken = np.array([0, 0, value], np.float32)
    bundle = write_bundle(
        tmp_path / "b", {"fp32": identity, "int8": identity}, bias={"int8": broken}
    )
    report = verify(bundle, data=colours, max_drop=100)
    gates = [gate for gate in report.gates if gate.name == "finite"]
    assert {gate.variant for gate in gates} == {"int8"} and report.verdict == "fail"
    assert str(colours / "blue" / "000.png") in gates[-1].sentence
    json.dumps(report.to_json(), allow_nan=False)


def test_unlabelled_images_have_an_agreement_and_no_accuracy(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(
        tmp_path / "b", {"fp32": identity, "int8": identity}, bias={"int8": _against_red(30)}
    )
    report = verify(bundle, data=colours / "red", min_agreement=90)
    found = report.to_json()["variants"]["int8"]
    assert found["agreement"] == 70 and found["top1"] is None
    assert report.verdict == "fail"
    unchecked = verify(bundle, data=colours / "red", min_top1=50, min_agreement=50)
    skipped = {g.name: g.sentence for g in unchecked.gates if g.verdict == "not checked"}
    assert list(skipped) == ["max-drop", "min-top1"] and unchecked.verdict == "pass"
    assert skipped["min-top1"].startswith("not checked: the true classes are not known: give --dat")
    strict = verify(bundle, data=colours / "red", min_agreement=50, strict=True)
    assert strict.verdict == "fail" and strict.reason.startswith("FAILED 1 of ")
    with pytest.raises(InputError, match="--min-top1 needs the true classes"):
        verify(bundle, min_top1=50)


def test_the_result_does_not_depend_on_threads_or_repetition(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(
        tmp_path / "b", {"fp32": identity, "int8": identity}, bias={"int8": _against_red(6)}
    )
    first, second = (verify(bundle, data=colours).to_json() for _ in range(2))
    for report in (first, second):
        del report["images"]["seconds"]
    assert first == second


def test_unreadable_images_are_listed_and_too_many_are_an_error(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    data = tmp_path / "data"
    shutil.copytree(colours, data)
    (data / "green" / "000.png").write_bytes(b"not an image")
    report = verify(bundle, data=data)
    assert report.to_json()["images"]["images"] == 299
    (entry,) = report.to_json()["images"]["unreadable"]
    assert entry["path"].endswith("000.png") and "not an image" in entry["error"]
    assert any("1 image could not be read and took no part" in text for text in report.notes)
    for number in range(20):
        (data / "red" / f"{number:03d}.png").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read, limit: 5%"):
        verify(bundle, data=data)


def test_class_folders_must_be_the_bundles_and_missing_ones_are_said(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    data = tmp_path / "data"
    shutil.copytree(colours / "red", data / "red")
    report = verify(bundle, data=data)
    assert any("2 of 3 classes have no images" in text for text in report.notes)
    shutil.copytree(colours / "green", data / "violet")
    with pytest.raises(InputError, match="'violet' is not among the 3 labels"):
        verify(bundle, data=data)


def test_an_empty_folder_is_refused(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        verify(bundle, data=tmp_path / "empty")


def test_a_reference_of_another_bundle_is_refused_or_fails(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    file = bundle / "reference.npz"
    inputs, logits = read_reference(file).inputs, read_reference(file).logits
    write_reference(file, Reference(inputs[:1], logits[:1]))
    with pytest.raises(BundleError, match=r"reference\.npz: altered since it was written"):
        verify(bundle)
    write_reference(file, Reference(inputs, np.tile(logits, 2)))
    write_manifest(bundle, read_bundle(bundle).manifest)
    with pytest.raises(BundleError, match=r"of another bundle: .* 6 logits, expected"):
        verify(bundle)
    write_reference(file, Reference(inputs, logits[:, ::-1].copy()))
    write_manifest(bundle, read_bundle(bundle).manifest)
    report = verify(bundle)
    assert report.verdict == "fail" and "another network's" in report.gates[0].sentence


@pytest.mark.parametrize("limits", [{"max_drop": -1.0}, {"min_top1": 101.0}, {"max_drop": np.nan}])
def test_limits_that_cannot_be_meant_are_refused(
    tmp_path: Path,
    write_bundle: WriteBundle,
    identity: Float32s,
    colours: Path,
    limits: dict[str, float],
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    with pytest.raises(InputError, match="not a percentage"):
        verify(bundle, data=colours, **limits)  # type: ignore[arg-type]


def test_a_limit_the_reference_itself_misses_is_said(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(
        tmp_path / "b",
        dict.fromkeys(("fp32", "int8"), identity),
        bias=dict.fromkeys(("fp32", "int8"), _against_red(90)),
    )
    report = verify(bundle, data=colours, min_top1=90)
    (gate,) = (g for g in report.gates if g.name == "min-top1" and g.variant == "int8")
    assert gate.verdict == "fail" and "the reference itself has only 70.00 %" in gate.sentence


def test_a_lone_graph_is_verified_against_nothing_and_says_so(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"int8": identity})
    lone = tmp_path / "lone.onnx"
    shutil.copy(bundle / "int8.onnx", lone)
    report = verify(lone, data=colours)
    assert report.verdict == "inconclusive" and report.gates[0].name == "reference"
    assert verify(lone, data=colours, min_top1=90).verdict == "pass"
    with pytest.raises(InputError, match=r"no reference\.npz"):
        verify(lone)


def test_a_list_of_paths_and_labels_is_read(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    Image.new("RGB", (20, 20), (200, 0, 0)).save(tmp_path / "a.png")
    Image.new("RGB", (20, 20), (0, 200, 0)).save(tmp_path / "c.png")
    (tmp_path / "list.csv").write_text("path,label\na.png,red\nc.png,blue\n")
    report = verify(bundle, data=tmp_path / "list.csv")
    assert report.to_json()["variants"]["fp32"]["top1"] == 50


def test_workers_that_have_the_images_give_the_same_report(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    weights = {"fp32": identity, "int8": identity}
    bundle = write_bundle(tmp_path / "b", weights, bias={"int8": _against_red(6)})
    data = Path(shutil.copytree(colours, tmp_path / "data"))  # one image is damaged below
    images = read_data(data, ("red", "green", "blue"))
    (tmp_path / "elsewhere").mkdir()
    files = [
        Path(shutil.copy(p, tmp_path / "elsewhere" / f"{n}")) for n, p in enumerate(images.paths)
    ]
    files[7].write_text("no image")
    shutil.copy(files[7], images.paths[7])
    here = verify(bundle, data=data, backends=["ort-cpu"]).to_json()
    images = replace(images, workers=InTurn(bundle, files))
    there = verify(bundle, data=images, backends=["ort-cpu"]).to_json()
    for report in (here, there):
        assert [row["path"] for row in report["images"]["unreadable"]] == [str(images.paths[7])]
        del report["images"]["seconds"]
    assert here == there
    with pytest.raises(InputError, match="--against needs the images here: use --engine local"):
        verify(bundle, data=images, against=bundle)
