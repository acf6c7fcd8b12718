"""A changed byte in a bundle is noticed, and a bundle that is being replaced is read as a whole."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from resdeploy.deploy.bundle.bundle import (
    ADOPTION,
    INT8_REPORT,
    MANIFEST,
    NEW_REFERENCE,
    RANGES,
    REFERENCE,
    check_file,
    describe_file,
    is_adopted,
    original_name,
    read_bundle,
    recorded_by,
    save_in_bundle,
    write_manifest,
)
from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.files import read_sealed, sealed


def _flip(path: Path, position: int, bits: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= bits
    path.write_bytes(content)


def test_reads_what_was_written(bundle: Path) -> None:
    read = read_bundle(bundle)
    assert read.manifest.labels[0] == "daisy"
    assert read.graph("fp32") == bundle / "fp32.onnx"
    write_manifest(bundle, read.manifest)
    assert read_bundle(bundle) == read


def test_its_own_files_are_known_by_whatever_path(bundle: Path) -> None:
    found = read_bundle(bundle)
    for name in ("manifest.json", "fp32.onnx", "../" + bundle.name + "/fp32.onnx"):
        assert found.owns(bundle / name)
    assert not found.owns(bundle / "report.html") and not found.owns(bundle.parent / "fp32.onnx")


def test_one_flipped_byte_in_a_graph(bundle: Path) -> None:
    graph = bundle / "fp32.onnx"
    for position in (0, graph.stat().st_size // 2, graph.stat().st_size - 1):
        _flip(graph, position)
        with pytest.raises(BundleError, match=r"fp32\.onnx: altered since it was written: sha256"):
            read_bundle(bundle).graph("fp32")
        _flip(graph, position)
    assert read_bundle(bundle).graph("fp32")


@pytest.mark.slow
def test_one_flipped_bit_in_the_manifest_never_passes_as_another_content(bundle: Path) -> None:
    """Each flip is refused in one line, or only changed the layout or the name of the hash."""
    file = bundle / MANIFEST
    before, manifest = file.read_bytes(), read_bundle(bundle).manifest
    passed = 0
    positions = range(0, len(before), 3)
    for position in positions:
        _flip(file, position, bits=1 << position % 7)
        try:
            assert read_bundle(bundle).manifest == manifest
            passed += 1
        except BundleError as error:
            assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
        file.write_bytes(before)
    assert passed < 0.25 * len(positions)  # blanks between the fields


def test_an_edited_manifest_is_refused_with_its_hash_and_without(bundle: Path) -> None:
    fields = json.loads((bundle / MANIFEST).read_text())
    fields["labels"][0] = "oxeye daisy"
    (bundle / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(BundleError, match=r"altered since it was written.*export again"):
        read_bundle(bundle)
    del fields["sha256"]
    (bundle / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(BundleError, match=r"altered since it was written.*export again"):
        read_bundle(bundle)


def test_every_file_beside_the_graphs_is_checked(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    assert manifest.files == {} and read_bundle(bundle).file(RANGES) is None
    (bundle / RANGES).write_text("{}")
    with pytest.raises(BundleError, match=r"ranges\.json: not among the files .* remove it"):
        read_bundle(bundle).file(RANGES)
    (bundle / "reports").mkdir()
    (bundle / INT8_REPORT).write_text("{}")
    write_manifest(bundle, manifest)
    opened = read_bundle(bundle)
    assert opened.file(RANGES) == bundle / RANGES and opened.file(REFERENCE) is None
    for name in (RANGES, INT8_REPORT):
        (bundle / name).write_text("[]")
        with pytest.raises(BundleError, match="altered since it was written"):
            opened.file(name)
        (bundle / name).unlink()
        assert opened.file(name) is None


def test_an_older_bundle_lists_no_files(bundle: Path) -> None:
    fields = json.loads((bundle / MANIFEST).read_text())
    del fields["files"]
    (bundle / MANIFEST).write_text(json.dumps(sealed(fields)))
    (bundle / RANGES).write_text("{}")
    assert read_bundle(bundle).file(RANGES) == bundle / RANGES


def test_reports_of_a_bundle_carry_their_own_hash(bundle: Path) -> None:
    save_in_bundle(bundle, "verify.json", {"a": [1.5, None], "b": "ü"})
    file = bundle / "reports" / "verify.json"
    assert read_sealed(file) == {"a": [1.5, None], "b": "ü"}
    file.write_text(file.read_text().replace("1.5", "2.5"))
    with pytest.raises(ValueError, match="altered since it was written"):
        read_sealed(file)


def test_missing_and_shortened_files(bundle: Path) -> None:
    graph = bundle / "fp32.onnx"
    with pytest.raises(BundleError, match=r"no fp16 variant .* has fp32\): .* --precision fp16"):
        read_bundle(bundle).graph("fp16")
    with pytest.raises(BundleError, match=r"no int8 variant .*: make it with resdeploy quantize"):
        read_bundle(bundle).graph("int8")
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"bytes, expected \d+: export again"):
        read_bundle(bundle).graph("fp32")
    graph.unlink()
    with pytest.raises(BundleError, match="missing, though the manifest lists it"):
        read_bundle(bundle).graph("fp32")
    graph.mkdir()
    with pytest.raises(BundleError, match="missing"):
        check_file(graph, "")


def test_what_is_no_bundle(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle; make a bundle with"):
        read_bundle(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"no manifest\.json in it"):
        read_bundle(tmp_path)
    checkpoint = tmp_path / "net.pth"
    checkpoint.write_bytes(b"PK")
    with pytest.raises(BundleError, match=r"a file, expected .* resdeploy export .*net\.pth"):
        read_bundle(checkpoint)
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        (bundle / MANIFEST).write_bytes(content)
        with pytest.raises(BundleError, match=r"manifest\.json: cannot be read"):
            read_bundle(bundle)


def test_a_bundle_replaced_by_another_model_is_not_read_as_this_one(bundle: Path) -> None:
    opened = read_bundle(bundle)
    labels = ("a", "b", "c", "d", "e")
    (bundle / "fp32.onnx").write_bytes(b"another graph")
    file = describe_file(bundle / "fp32.onnx", opset=17, made_from="checkpoint")
    write_manifest(bundle, replace(opened.manifest, labels=labels).with_variant("fp32", file))
    with pytest.raises(BundleError, match="replaced by another model meanwhile: run again"):
        opened.graph("fp32")
    assert read_bundle(bundle).graph("fp32").read_bytes() == b"another graph"


def test_what_stands_in_a_bundles_place_is_named(tmp_path: Path) -> None:
    engine = tmp_path / "a.bundle" / "engines" / "fp16-tensorrt-10.3.0-sm87.engine"
    engine.parent.mkdir(parents=True)
    engine.write_bytes(b"")
    with pytest.raises(BundleError, match=r"an engine, .*: give the bundle .*a\.bundle$"):
        read_bundle(engine)
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"an ONNX graph, .* resdeploy adopt .*net\.onnx"):
        read_bundle(tmp_path / "net.onnx")


def test_an_adopted_graph_is_named_instead_of_pytorch(flower_bundle: Path) -> None:
    manifest = read_bundle(flower_bundle).manifest
    assert not is_adopted(manifest) and original_name(manifest) == "PyTorch"
    adopted = replace(manifest, proofs={ADOPTION: {"file": "a.onnx"}})
    assert is_adopted(adopted) and original_name(adopted) == "the adopted graph"


def test_recorded_logits_are_the_originals_until_replaced(
    flower_bundle: Path,
) -> None:
    manifest = read_bundle(flower_bundle).manifest
    assert recorded_by(manifest) == "PyTorch"
    replaced = replace(manifest, proofs={NEW_REFERENCE: {"logits": "those of fp32.onnx"}})
    assert recorded_by(replaced) == "fp32.onnx"
    assert original_name(replaced) == "PyTorch"  # what the export was compared with
