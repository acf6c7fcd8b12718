"""`resdeploy predict` as a user runs it: output, exit codes, pipes, Ctrl-C."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.inference.classifier import load
from resdeploy.deploy.inference.prediction import top_predictions
from resdeploy.deploy.installation import install_command
from tests.command import run_command

_COMMAND = [sys.executable, "-c", "from resdeploy.deploy.cli.main import main; main()"]


def _in_a_process(
    *arguments: object, environment: dict[str, str] | None = None, folder: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*_COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        cwd=folder,
        encoding="utf-8",
        errors="surrogateescape",
    )


def _failed(exit_code: int, *arguments: object) -> str:
    """The one line of a command that fails."""
    done = run_command(*arguments)
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "Traceback" not in line
    return line.removeprefix("error: ")


@pytest.fixture
def mixed(image_folder: Path, tmp_path: Path) -> Path:
    """A folder of three images, the one in the middle bad."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("a.jpg", "c.jpg"):
        shutil.copy(image_folder / "cut_03.jpg", folder / name)
    (folder / "b.jpg").write_text("no image")
    return folder


def test_json_is_what_load_predicts_and_nothing_else(
    flower_bundle: Path, image_folder: Path
) -> None:
    done = run_command("predict", flower_bundle, image_folder, "--json", "--top", 2, "--batch", 5)
    assert (done.returncode, done.stderr) == (0, "")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    paths = sorted(image_folder.iterdir())
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    with load(flower_bundle) as classifier:
        answers = list(classifier.predict_many(paths, top=2))
    for row, answer in zip(rows, answers, strict=True):
        assert set(row) == {"path", "predictions"}
        for found, expected in zip(row["predictions"], answer, strict=True):
            assert (found["label"], found["index"]) == (expected.label, expected.index)
            assert found["probability"] == pytest.approx(expected.probability, abs=1e-6)


def test_without_an_answer_there_is_nothing_to_count(flower_bundle: Path, mixed: Path) -> None:
    done = run_command("predict", flower_bundle, mixed / "b.jpg", mixed / "none.jpg")
    assert done.returncode == 1 and "2 of 2 images could not be read" in done.stderr
    assert "classified" not in done.stderr and "next:" not in done.stderr
    assert "no such file" in done.stdout and " class   images" not in done.stdout


def test_a_bad_image_is_a_row_and_exit_code_1(
    flower_bundle: Path, mixed: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    done = run_command("predict", flower_bundle, mixed, "--json", "--csv", file, "--top", 2)
    assert (done.returncode, done.stderr) == (1, "1 of 3 images could not be read\n")
    rows = json.loads(done.stdout)
    assert rows[1] == {
        "path": str(mixed / "b.jpg"),
        "error": "not an image in any format Pillow reads",
    }
    assert rows[0]["predictions"] == rows[2]["predictions"]
    with file.open(newline="") as stream:
        first, bad, last = csv.DictReader(stream)
    assert first["label_1"] == rows[0]["predictions"][0]["label"] and not first["error"]
    assert float(last["probability_2"]) == rows[2]["predictions"][1]["probability"]
    assert bad["error"] == rows[1]["error"] and not bad["label_1"]
    table = run_command("predict", flower_bundle, mixed)
    assert table.returncode == 1 and "not an image in any format" in table.stdout
    assert "classified 2 of 3 images in " in table.stderr


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1", "COLUMNS": "40"}])
def test_a_table_in_a_pipe_is_not_cut(
    environment: dict[str, str], flower_bundle: Path, image_folder: Path
) -> None:
    done = run_command("predict", flower_bundle, image_folder, environment=environment)
    assert done.returncode == 0
    assert "…" not in done.stdout
    for path in image_folder.iterdir():
        (line,) = (line for line in done.stdout.splitlines() if str(path) in line)
        assert line.count("%") == 5
    assert "image" in done.stdout.splitlines()[0 if done.stdout.splitlines()[0] else 1]


def test_one_image_and_a_lone_graph(flower_bundle: Path, image_folder: Path) -> None:
    done = run_command(
        "predict", flower_bundle / "fp32.onnx", image_folder / "cut_00.jpg", "--top", 5
    )
    assert done.returncode == 0 and done.stderr.startswith("classified 1 image in ")
    for label in ("daisy", "dandelion", "roses", "sunflowers", "tulips"):
        assert label in done.stdout


@pytest.mark.slow
def test_odd_file_names(flower_bundle: Path, image_folder: Path, tmp_path: Path) -> None:
    """Square brackets are no markup; a name that is not UTF-8 must not end the command."""
    names = [b"[red]rose.jpg", "Blüte 花.jpg".encode(), b"caf\xe9.jpg"]
    folder = os.fsencode(tmp_path)
    for name in names:
        shutil.copy(image_folder / "cut_00.jpg", Path(os.fsdecode(folder + b"/p_" + name)))
    for environment in ({}, {"PYTHONIOENCODING": "ascii"}):
        table = _in_a_process(
            "predict", flower_bundle, "p_*", folder=tmp_path, environment=environment
        )
        assert table.returncode == 0, table.stderr
        assert "p_[red]rose.jpg" in table.stdout
        done = _in_a_process(
            "predict", flower_bundle, "p_*", "--json", folder=tmp_path, environment=environment
        )
        paths = [row["path"] for row in json.loads(done.stdout)]
        assert {os.fsencode(path) for path in paths} == {b"p_" + name for name in names}
    done = _in_a_process("predict", flower_bundle, "p_*", "--csv", "o.csv", folder=tmp_path)
    assert done.returncode == 0
    content = (tmp_path / "o.csv").read_bytes()
    assert all(b"p_" + name in content for name in names)


def test_csv_holds_no_formula_unless_it_is_asked_for(
    flower_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    image = next(iter(sorted(image_folder.iterdir())))
    names = ["=cmd|calc.jpg", "+1.jpg", "-1.jpg", "@SUM.jpg"]
    for name in names:
        (tmp_path / name).symlink_to(image)
    for option, expected in (([], [f"'{n}" for n in names]), (["--csv-raw"], names)):
        run_command(
            "predict", flower_bundle, "--csv", "o.csv", *option, "--", *names, folder=tmp_path
        )
        with (tmp_path / "o.csv").open() as stream:
            assert [row["path"] for row in csv.DictReader(stream)] == expected


def test_csv_to_a_device_leaves_it_one(flower_bundle: Path, image_folder: Path) -> None:
    image = image_folder / "cut_00.jpg"
    done = run_command("predict", flower_bundle, image, "--csv", "/dev/null")
    assert done.returncode == 0
    assert Path("/dev/null").is_char_device()


def test_errors_are_one_line_with_their_exit_code(
    flower_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    image = image_folder / "cut_00.jpg"
    (tmp_path / "empty").mkdir()
    (tmp_path / "net.pth").write_bytes(b"PK")
    assert "no such bundle" in _failed(1, "predict", tmp_path / "absent", image)
    assert "resdeploy export" in _failed(1, "predict", tmp_path / "net.pth", image)
    assert "no images there" in _failed(1, "predict", flower_bundle, tmp_path / "empty")
    assert "no fp16 variant" in _failed(1, "predict", flower_bundle, image, "--precision=fp16")
    csv_file = tmp_path / "absent" / "o.csv"
    assert "cannot be written" in _failed(1, "predict", flower_bundle, image, "--csv", csv_file)
    if cuda_problem():
        line = _failed(4, "predict", flower_bundle, image, "--backend", "ort-cuda")
        assert "needs an NVIDIA GPU" in line


def test_a_flipped_byte_is_one_line(
    flower_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(flower_bundle, tmp_path / "net.bundle"))
    for name in ("fp32.onnx", "manifest.json"):
        whole = (bundle / name).read_bytes()
        content = bytearray(whole)
        content[len(content) // 2] ^= 1
        (bundle / name).write_bytes(content)
        assert name in _failed(1, "predict", bundle, image_folder)
        (bundle / name).write_bytes(whole)


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict",),
        ("predict", "x.bundle"),
        ("predict", "x.bundle", "a.jpg", "--backend", "cuda"),
        ("predict", "x.bundle", "a.jpg", "--precision", "fp8"),
        ("predict", "x.bundle", "a.jpg", "--top", "0"),
        ("predict", "x.bundle", "a.jpg", "--batch", "many"),
        ("predikt",),
        ("inspect",),
        ("doctor", "me"),
    ],
)
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    done = run_command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: resdeploy" in done.stderr and "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = _in_a_process("--debug", "predict", tmp_path / "absent", "a.jpg")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "BundleError" in done.stderr


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_reader_that_leaves_is_no_error(
    form: tuple[str, ...], flower_bundle: Path, image_folder: Path
) -> None:
    process = subprocess.Popen(
        [*_COMMAND, "predict", str(flower_bundle), str(image_folder), *form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.slow
def test_ctrl_c_while_predicting(
    flower_bundle: Path, photographs: list[Image.Image], tmp_path: Path
) -> None:
    large = tmp_path / "large.png"
    photographs[0].resize((2000, 1500)).save(large, compress_level=1)
    process = subprocess.Popen(
        [*_COMMAND, "predict", str(flower_bundle), *[str(large)] * 3000, "--csv", "out.csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    )
    deadline = time.monotonic() + 60
    while _threads(process.pid) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)  # until the decoding threads are there
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip() == "interrupted: no half-written file is left"
    assert [path.name for path in tmp_path.iterdir()] == ["large.png"]


@pytest.mark.slow
def test_a_csv_file_is_written_though_nobody_reads_the_table(
    flower_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    """300 answers are more than one part of the table, so that the first is printed on the way."""
    images = [str(image_folder / "cut_03.jpg")] * 300
    process = subprocess.Popen(
        [*_COMMAND, "predict", str(flower_bundle), *images, "--csv", str(tmp_path / "o.csv")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 301


def test_json_with_an_error_on_the_way_is_the_error_alone(
    flower_bundle: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[int] = []

    def fails_at_the_third(*arguments: Any) -> Any:
        asked.append(1)
        if len(asked) == 3:
            raise GraphError("the network answered nan")
        return top_predictions(*arguments)

    place = "resdeploy.deploy.inference.classifier.top_predictions"
    monkeypatch.setattr(place, fails_at_the_third)
    done = run_command(
        "predict", flower_bundle, image_folder, "--json", "--csv", tmp_path / "o.csv"
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["kind"] == "GraphError"
    assert list(tmp_path.iterdir()) == []


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_without_onnxruntime(
    bare_python: Callable[..., list[str]], flower_bundle: Path, image_folder: Path
) -> None:
    main = "from resdeploy.deploy.cli.main import main; main()"
    bare = [*bare_python(), main]
    for model in (flower_bundle, flower_bundle / "fp32.onnx"):
        done = subprocess.run(
            [*bare, "predict", model, image_folder], capture_output=True, text=True
        )
        assert done.returncode == 4
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ") and "needs onnxruntime, which is not installed" in line
        assert line.endswith(install_command("cpu" if cuda_problem() else "runtime"))
    done = subprocess.run(
        [*bare, "inspect", flower_bundle / "fp32.onnx", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert install_command("export") in json.loads(done.stdout)["operators"]
    done = subprocess.run(
        [*bare, "inspect", flower_bundle, "--json"], capture_output=True, text=True
    )
    assert json.loads(done.stdout)["variants"]["fp32"]["state"] == "intact"
    checkpoint = image_folder / "cut_00.jpg"
    done = subprocess.run([*bare, "export", checkpoint], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "is no PyTorch file" in done.stderr


@pytest.mark.slow
def test_with_onnxruntime_only(
    bare_python: Callable[..., list[str]], flower_bundle: Path, image_folder: Path
) -> None:
    name = "onnxruntime-gpu" if _installed("onnxruntime-gpu") else "onnxruntime"
    main = "from resdeploy.deploy.cli.main import main; main()"
    command = [
        *bare_python(name),
        main,
        "predict",
        str(flower_bundle),
        str(image_folder),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run_command("predict", flower_bundle, image_folder, "--json").stdout


def _installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return False


@pytest.fixture
def web(image_folder: Path) -> Iterator[str]:
    """A server here: /cut.jpg, /moved to it, /page of text, /huge, /away from the web."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            moves = {"/moved": "/cut.jpg", "/away": "ftp://127.0.0.1/a.jpg", "/round": "/round"}
            if self.path in moves:
                self.send_response(302)
                self.send_header("Location", moves[self.path])
                self.end_headers()
                return
            kind = "text/html" if self.path == "/page" else "image/jpeg"
            self.send_response(404 if self.path == "/absent" else 200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            if self.path == "/huge":
                with contextlib.suppress(OSError):  # the client leaves
                    for _ in range(65):
                        self.wfile.write(bytes(1_000_000))
            else:
                self.wfile.write((image_folder / "cut_03.jpg").read_bytes())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_urls_are_fetched_and_each_that_cannot_be_says_why(
    flower_bundle: Path, image_folder: Path, web: str
) -> None:
    names = ("cut.jpg", "moved", "page", "absent", "away", "round", "huge")
    urls = [f"{web}/{name}" for name in names]
    done = run_command("predict", flower_bundle, image_folder / "cut_03.jpg", *urls, "--json")
    assert done.returncode == 1 and "5 of 8 images could not be read" in done.stderr
    here, fetched, moved, *failed = json.loads(done.stdout)
    assert here["predictions"] == fetched["predictions"] == moved["predictions"]
    assert moved["path"] == f"{web}/moved"
    reasons = [row["error"] for row in failed]
    assert reasons[0] == "the server sent text/html, expected an image"
    assert reasons[1] == "the server answers 404 Not Found"
    assert reasons[2] == "redirected to ftp://127.0.0.1/a.jpg, expected http or https"
    assert "redirect" in reasons[3]
    assert reasons[4] == "too large for an image, limit: 64 MB"


def test_a_server_that_is_not_there(flower_bundle: Path) -> None:
    done = run_command("predict", flower_bundle, "http://127.0.0.1:9/a.jpg", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)[0]["error"].startswith("cannot be fetched: ")


def test_standard_input(flower_bundle: Path, image_folder: Path) -> None:
    image = image_folder / "cut_03.jpg"
    words = [*_COMMAND, "predict", str(flower_bundle), "-", "--json"]
    done = subprocess.run(words, input=image.read_bytes(), capture_output=True)
    (row,) = json.loads(done.stdout)
    (expected,) = json.loads(run_command("predict", flower_bundle, image, "--json").stdout)
    assert row["path"] == "(standard input)" and row["predictions"] == expected["predictions"]
    assert "read once only" in _failed(1, "predict", flower_bundle, "-", "-")


def test_counts_follow_and_the_accuracy_where_folders_name_the_classes(
    flower_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    with load(flower_bundle) as classifier:
        answer = classifier.predict(image_folder / "cut_03.jpg")[0].label
        other = next(label for label in classifier.manifest.labels if label != answer)
    for folder in (answer, other):
        (tmp_path / folder).mkdir()
        shutil.copy(image_folder / "cut_03.jpg", tmp_path / folder)
    shutil.copy(image_folder / "cut_03.jpg", tmp_path / answer / "again.jpg")
    done = run_command("predict", flower_bundle, tmp_path)
    assert "accuracy 66.67%: 2 of 3 images; their folders name the classes" in done.stderr
    assert done.stdout.split()[-3:] == [answer, "3", "2"]
    plain = run_command("predict", flower_bundle, image_folder)
    assert "accuracy" not in plain.stderr
    counts = [line.split() for line in plain.stdout.splitlines() if line.count(" ") and "%" not in
              line and not line.startswith(" ─")]  # fmt: skip
    assert sum(int(words[-1]) for words in counts if words[-1].isdigit()) == 24


def test_below_the_least_probability_an_image_is_unsure(
    flower_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    image = image_folder / "cut_03.jpg"
    (row,) = json.loads(run_command("predict", flower_bundle, image, "--json").stdout)
    first, second = (p["probability"] for p in row["predictions"][:2])
    between = (first + second) / 2
    words = ("predict", flower_bundle, image, image, "--min-probability")
    (kept, _) = json.loads(run_command(*words, between, "--json").stdout)
    assert [p["probability"] for p in kept["predictions"]] == [first]
    done = run_command(*words, 1.0)
    assert done.returncode == 0 and "unsure" in done.stdout
    file = tmp_path / "rows.csv"
    run_command(*words, 1.0, "--csv", file)
    assert [line.split(",")[1:] for line in file.read_text().splitlines()[1:]] == [[""], [""]]


def test_annotated_images_are_written_under_names_of_their_own(
    flower_bundle: Path, mixed: Path, tmp_path: Path
) -> None:
    (mixed / "more").mkdir()
    shutil.copy(mixed / "a.jpg", mixed / "more" / "a.png.jpg")
    shutil.copy(mixed / "a.jpg", mixed / "more" / "a.jpg")
    folder = tmp_path / "seen" / "here"
    done = run_command("predict", flower_bundle, mixed, "--save-dir", folder, "--top", 2)
    assert done.returncode == 1 and f"4 annotated images in {folder}" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "a-2.jpg", "a.jpg", "a.png.jpg", "c.jpg",
    ]  # fmt: skip
    with Image.open(mixed / "a.jpg") as before, Image.open(folder / "a.jpg") as page:
        assert page.width >= 240 and page.height > before.height * page.width / before.width
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    line = _failed(1, "predict", flower_bundle, mixed, "--save-dir", in_the_way / "x")
    assert "cannot be made" in line
