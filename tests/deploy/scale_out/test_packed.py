"""A bundle travels whole, but for its reports."""

import hashlib
from pathlib import Path

import pytest

from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.inference.classifier import load
from resdeploy.deploy.scale_out.packed import pack, unpacked


def _digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_every_file_but_the_reports_arrives(tiny_bundle: Path) -> None:
    (tiny_bundle / "reports").mkdir()
    (tiny_bundle / "reports" / "verify.json").write_text("{}")
    sent = _digests(tiny_bundle)
    with unpacked(pack(tiny_bundle)) as arrived:
        assert arrived.name == tiny_bundle.name
        assert _digests(arrived) == {k: v for k, v in sent.items() if "reports" not in k}
        with load(arrived) as classifier:
            assert classifier.precision == "fp32"
        folder = arrived.parent
    assert not folder.exists()


def test_a_lone_graph_travels_too(tiny_bundle: Path) -> None:
    graph = tiny_bundle / "fp32.onnx"
    with unpacked(pack(graph)) as arrived:
        assert arrived.read_bytes() == graph.read_bytes()
        load(arrived).close()


def test_what_is_no_bundle_is_refused_before_it_travels(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        pack(tmp_path / "no.bundle")
