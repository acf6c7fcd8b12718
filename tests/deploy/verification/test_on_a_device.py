"""`verify` where only an engine runs: the base installation, no ONNX Runtime, as on a Jetson."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from resdeploy.deploy.arrays import Float32s

_ROOT = Path(__file__).parents[3]

# The engine itself is beside the point; a session that computes what the graph says stands for it.
_PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv.pop(1))
from resdeploy.deploy.verification import candidates
from resdeploy.deploy.verification.verify import verify
from tests.fakes import FakeSession

engine = FakeSession(backend="tensorrt")
candidates.open_session = lambda model, *, precision, backend: engine
bundle, data = sys.argv[1], sys.argv[2] or None
report = verify(bundle, data=data, backends=["tensorrt"])
found = report.to_json()
found["notes"] = list(report.notes)
found["heavy"] = "onnxruntime" in sys.modules
print(json.dumps(found))
"""

Bare = Callable[..., list[str]]
WriteBundle = Callable[..., Path]


def _verified(bare_python: Bare, bundle: Path, data: Path | None) -> dict[str, object]:
    words = [*bare_python(), _PROGRAM, str(_ROOT), str(bundle), str(data or "")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    assert not found["heavy"]
    return found


def test_an_engine_is_proven_by_the_recorded_answers(
    bare_python: Bare, write_bundle: WriteBundle, identity: Float32s, tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    found = _verified(bare_python, bundle, None)
    assert "recorded in reference.npz" in str(found["reference"])
    (variant,) = found["variants"].values()  # type: ignore[attr-defined]
    assert variant["agreement"] == 100 and variant["sqnr_db"] > 100
    assert found["verdict"] != "fail"


@pytest.mark.slow
def test_images_add_the_accuracy_and_the_note_says_what_is_missing(
    bare_python: Bare,
    write_bundle: WriteBundle,
    identity: Float32s,
    colours: Path,
    tmp_path: Path,
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    found = _verified(bare_python, bundle, colours)
    (variant,) = found["variants"].values()  # type: ignore[attr-defined]
    assert (variant["images"], variant["top1"]) == (300, 100)
    assert "compared with nothing: backend ort-cpu needs onnxruntime" in str(found["notes"])
