"""A log that its reader cannot stop, and marks that tie requests together."""

import json
import threading
from io import StringIO

from resdeploy.deploy.serving import access_log
from resdeploy.deploy.serving.access_log import AccessLog, Line, marks_of

_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _line(path: str) -> Line:
    return Line(marks_of({}), "::1", "GET", path, "", 200, None, None, 2, 0.0015)


def test_lines_come_in_order_without_what_is_too_long() -> None:
    stream = StringIO()
    with AccessLog(stream) as log:
        for path in ("/a", "/" + "b" * 1000):
            log.add(_line(path))
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["path"], first["status"], first["ms"], first["model"]) == ("/a", 200, 1.5, None)
    assert len(second["path"]) == 200


def test_a_reader_that_stops_costs_lines_and_no_request() -> None:
    reading = threading.Event()

    class Slow(StringIO):
        def write(self, text: str) -> int:
            assert reading.wait(10)
            return super().write(text)

    stream = Slow()
    with AccessLog(stream) as log:
        for number in range(access_log._LINES + 10):
            log.add(_line(f"/{number}"))
        reading.set()
        while log._queue.qsize() > access_log._LINES // 2:
            pass
        log.add(_line("/last"))
    last = json.loads(stream.getvalue().splitlines()[-1])
    assert last["path"] == "/last" and last["missed"] >= 9


def test_a_closed_stream_ends_the_log_only() -> None:
    stream = StringIO()
    with AccessLog(stream) as log:
        stream.close()
        log.add(_line("/"))


def test_marks_are_taken_over_or_made() -> None:
    marks = marks_of({"x-request-id": "job.7:a", "traceparent": _TRACE})
    assert marks.headers() == {"x-request-id": "job.7:a", "traceparent": _TRACE}
    assert marks.trace_id == _TRACE[3:35]
    for bad in ("", "a b", "x" * 129, "é"):
        assert len(marks_of({"x-request-id": bad, "traceparent": bad}).request_id) == 32
