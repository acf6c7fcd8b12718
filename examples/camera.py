"""Classifies what a camera sees, and writes the answer onto the image.

    python examples/camera.py BUNDLE                      the first camera
    python examples/camera.py BUNDLE clip.mp4             a file, at its own speed
    python examples/camera.py BUNDLE rtsp://host/stream   what OpenCV can open
    python examples/camera.py BUNDLE --gstreamer 'nvarguscamerasrc ! … ! appsink drop=1'

A thread reads frames and keeps only the latest: what is classified is never older than one frame,
however slow the network is, and the frames in between are counted and left out. `q` in the window
ends it. JetPack brings OpenCV with GStreamer; elsewhere: pip install opencv-python.
"""

import argparse
import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    import cv2
except ModuleNotFoundError:
    raise SystemExit("error: OpenCV is not installed: pip install opencv-python") from None

from resdeploy.deploy import Prediction, load

_FRAMES_OF_RATE = 30
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK, _SHADOW = (255, 255, 255), (0, 0, 0)


class Latest:
    """Holds the newest of what is put in; whoever takes never gets the same twice."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: Any = None
        self._closed = False
        self.put_in = 0
        self.skipped = 0

    def put(self, frame: Any) -> None:
        with self._changed:
            self.put_in += 1
            self.skipped += self._held is not None
            self._held = frame
            self._changed.notify()

    def take(self) -> Any:
        """Wait for the next frame; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._held is not None or self._closed)
            frame, self._held = self._held, None
            return frame

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()


def opened(source: str, *, gstreamer: bool) -> Any:
    """The capture of a camera's number, a file, a URL or a GStreamer pipeline."""
    place: Any = int(source) if source.isdecimal() else source
    capture = cv2.VideoCapture(place, cv2.CAP_GSTREAMER) if gstreamer else cv2.VideoCapture(place)
    if not capture.isOpened():
        raise SystemExit(f"error: {source}: OpenCV cannot open it as a camera, file or stream")
    return capture


def read(capture: Any, latest: Latest, stop: threading.Event, frame_s: float) -> None:
    """Put frames in until they end; a file's at its own speed, one every `frame_s`."""
    due = time.monotonic()
    while not stop.is_set():
        good, frame = capture.read()
        if not good:
            break
        latest.put(frame)
        due += frame_s
        if frame_s:
            time.sleep(max(0.0, due - time.monotonic()))
    latest.close()


def draw(frame: Any, answer: Sequence[Prediction], per_second: float, ms: float) -> Any:
    """The frame with the classes, the rate and the time of one answer in its corner."""
    scale = max(0.4, frame.shape[1] / 900)
    step = round(32 * scale)
    lines = [f"{p.label} {p.probability:.0%}" for p in answer]
    lines.append(f"{per_second:.1f} FPS, {ms:.1f} ms")
    for number, line in enumerate(lines):
        place = (step // 2, step * (number + 1))
        for colour, width in ((_SHADOW, 4), (_INK, 1)):
            cv2.putText(frame, line, place, _FONT, scale, colour, width, cv2.LINE_AA)
    return frame


def rate(moments: Sequence[float]) -> float:
    """Frames a second over the last ones."""
    return (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 1 else 0.0


def run(options: argparse.Namespace) -> dict[str, Any]:
    source = options.gstreamer or options.source
    capture = opened(source, gstreamer=options.gstreamer is not None)
    per_second = capture.get(cv2.CAP_PROP_FPS) or 30.0
    latest, stop = Latest(), threading.Event()
    frame_s = 1 / per_second if Path(source).is_file() else 0.0
    reader = threading.Thread(target=read, args=(capture, latest, stop, frame_s), daemon=True)
    moments: deque[float] = deque(maxlen=_FRAMES_OF_RATE)
    labels: list[str] = []
    writer = None
    with load(options.bundle, precision=options.precision, backend=options.backend) as classifier:
        reader.start()
        while (frame := latest.take()) is not None:
            began = time.perf_counter()
            answer = classifier.predict(frame, top=options.top, channels="BGR")
            ms = 1000 * (time.perf_counter() - began)
            moments.append(time.perf_counter())
            labels.append(answer[0].label)
            shown = draw(frame, answer, rate(moments), ms)
            if options.output is not None:
                size = (shown.shape[1], shown.shape[0])
                code = cv2.VideoWriter.fourcc(*"MJPG")
                writer = writer or cv2.VideoWriter(str(options.output), code, per_second, size)
                writer.write(shown)
            if not options.headless:
                cv2.imshow("resdeploy", shown)
                if cv2.waitKey(1) & 0xFF == ord("q"):
                    break
        stop.set()
    if writer is not None:
        writer.release()
    return {
        "read": latest.put_in,
        "classified": len(labels),
        "skipped": latest.skipped,
        "fps": round(rate(moments), 1),
        "labels": [label for n, label in enumerate(labels) if labels[n - 1 : n] != [label]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("source", nargs="?", default="0", help="camera's number, file or URL")
    parser.add_argument("--gstreamer", metavar="PIPELINE", help="a pipeline that ends in appsink")
    parser.add_argument("--precision", help="default: fp32")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--headless", action="store_true", help="open no window")
    parser.add_argument("--output", type=Path, metavar="FILE.avi", help="also write what is shown")
    print(json.dumps(run(parser.parse_args())))


if __name__ == "__main__":
    main()
