"""The camera loop on a video that the test writes: what it answers, draws and leaves out."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s

_SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "camera.py"
_FRAMES, _SIZE_PX = 40, 160

cv2 = pytest.importorskip("cv2", reason="no OpenCV here: pip install opencv-python-headless")


@pytest.fixture(scope="module")
def camera() -> ModuleType:
    spec = spec_from_file_location("camera", _SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Red for two seconds, then blue for two."""
    file = tmp_path / "colours.avi"
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(file), code, _FRAMES / 4, (_SIZE_PX, _SIZE_PX))
    for number in range(_FRAMES):
        frame = np.zeros((_SIZE_PX, _SIZE_PX, 3), np.uint8)
        frame[:, :, 2 if number < _FRAMES / 2 else 0] = 255  # OpenCV's order is BGR
        writer.write(frame)
    writer.release()
    return file


def test_the_latest_frame_wins(camera: ModuleType) -> None:
    latest = camera.Latest()
    for frame in (1, 2, 3):
        latest.put(frame)
    assert latest.take() == 3
    latest.put(4)
    latest.close()
    assert (latest.take(), latest.take()) == (4, None)
    assert (latest.put_in, latest.skipped) == (4, 2)


@pytest.mark.slow
def test_a_video_is_classified_and_drawn_on(
    tmp_path: Path, video: Path, write_colours: Callable[[Path], Path]
) -> None:
    bundle, output = write_colours(tmp_path / "colours.bundle"), tmp_path / "shown.avi"
    words = [str(bundle), str(video), "--headless", "--top", "1", "--output", str(output)]
    done = subprocess.run([sys.executable, str(_SCRIPT), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["read"] == _FRAMES == found["classified"] + found["skipped"]
    assert found["labels"] == ["red", "blue"]
    capture = cv2.VideoCapture(str(output))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == found["classified"]
    good, frame = capture.read()
    assert good and frame.shape == (_SIZE_PX, _SIZE_PX, 3)
    corner, rest = frame[:40].astype(int), frame[80:].astype(int)
    assert corner[:, :, 1].max() > 150  # white letters on the red
    assert rest[:, :, 1].max() < 60 and rest[:, :, 2].min() > 200


@pytest.mark.slow
def test_no_video_is_one_line(tmp_path: Path, write_colours: Callable[[Path], Path]) -> None:
    words = [str(write_colours(tmp_path / "colours.bundle")), str(tmp_path / "no.avi")]
    done = subprocess.run(
        [sys.executable, str(_SCRIPT), *words, "--headless"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "no.avi: OpenCV cannot open it as a camera, file or stream"
    )


@pytest.fixture
def write_colours() -> Callable[[Path], Path]:
    """A bundle whose answer is the strongest channel."""
    from tests.builders import graph_of, write_bundle

    identity: Float32s = np.eye(3, dtype=np.float32)
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    colours (float[batch, 3, 8, 8] input) => (float[batch, 3] logits)
    {
        [g] g = GlobalAveragePool (input)
        [f] f = Flatten (g)
        [logits] logits = MatMul (f, w)
    }
    """

    def write(path: Path) -> Path:
        from resdeploy.deploy.images.preprocess import named

        graph = graph_of(text, {"w": identity})
        return write_bundle(
            path, {"fp32": graph}, named("half", 8), labels=("red", "green", "blue")
        )

    return write
