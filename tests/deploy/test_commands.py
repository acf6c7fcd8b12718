"""`resdeploy predict` and `inspect` as a user runs them: output, exit codes, pipes, Ctrl-C."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest
from PIL import Image

from resdeploy.deploy.classifier import load
from resdeploy.deploy.cuda import cuda_problem

_COMMAND = [sys.executable, "-c", "from resdeploy.deploy.cli import main; main()"]


def _run(
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
    done = _run(*arguments)
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "Traceback" not in line
    return line.removeprefix("error: ")


@pytest.fixture
def mixed(picture_folder: Path, tmp_path: Path) -> Path:
    """A folder of three pictures, the one in the middle bad."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("a.jpg", "c.jpg"):
        shutil.copy(picture_folder / "cut_03.jpg", folder / name)
    (folder / "b.jpg").write_text("no picture")
    return folder


# --- predict


def test_json_is_what_load_predicts_and_nothing_else(
    flower_bundle: Path, picture_folder: Path
) -> None:
    done = _run("predict", flower_bundle, picture_folder, "--json", "--top", 2, "--batch", 5)
    assert (done.returncode, done.stderr) == (0, "")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    paths = sorted(picture_folder.iterdir())
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    with load(flower_bundle) as classifier:
        answers = list(classifier.predict_many(paths, top=2))
    for row, answer in zip(rows, answers, strict=True):
        assert set(row) == {"path", "predictions"}
        for found, expected in zip(row["predictions"], answer, strict=True):
            assert (found["label"], found["index"]) == (expected.label, expected.index)
            assert found["probability"] == pytest.approx(expected.probability, abs=1e-6)


def test_a_bad_picture_is_a_row_and_exit_code_1(
    flower_bundle: Path, mixed: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    done = _run("predict", flower_bundle, mixed, "--json", "--csv", file, "--top", 2)
    assert (done.returncode, done.stderr) == (1, "1 of 3 pictures could not be read\n")
    rows = json.loads(done.stdout)
    assert rows[1] == {
        "path": str(mixed / "b.jpg"),
        "error": "not a picture in any format Pillow reads",
    }
    assert rows[0]["predictions"] == rows[2]["predictions"]
    with file.open(newline="") as stream:
        first, bad, last = csv.DictReader(stream)
    assert first["label_1"] == rows[0]["predictions"][0]["label"] and not first["error"]
    assert float(last["probability_2"]) == rows[2]["predictions"][1]["probability"]
    assert bad["error"] == rows[1]["error"] and not bad["label_1"]
    table = _run("predict", flower_bundle, mixed)
    assert table.returncode == 1 and "not a picture in any format" in table.stdout


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1", "COLUMNS": "40"}])
def test_a_table_in_a_pipe_is_not_cut(
    environment: dict[str, str], flower_bundle: Path, picture_folder: Path
) -> None:
    done = _run("predict", flower_bundle, picture_folder, environment=environment)
    assert done.returncode == 0
    assert "…" not in done.stdout
    for path in picture_folder.iterdir():
        (line,) = (line for line in done.stdout.splitlines() if str(path) in line)
        assert line.count("%") == 5
    assert "picture" in done.stdout.splitlines()[0 if done.stdout.splitlines()[0] else 1]


def test_one_picture_and_a_lone_graph(flower_bundle: Path, picture_folder: Path) -> None:
    done = _run("predict", flower_bundle / "fp32.onnx", picture_folder / "cut_00.jpg", "--top", 5)
    assert (done.returncode, done.stderr) == (0, "")
    for label in ("daisy", "dandelion", "roses", "sunflowers", "tulips"):
        assert label in done.stdout


def test_odd_file_names(flower_bundle: Path, picture_folder: Path, tmp_path: Path) -> None:
    """Square brackets are no markup; a name that is not UTF-8 must not end the command."""
    names = [b"[red]rose.jpg", "Blüte 花.jpg".encode(), b"caf\xe9.jpg"]
    folder = os.fsencode(tmp_path)
    for name in names:
        shutil.copy(picture_folder / "cut_00.jpg", Path(os.fsdecode(folder + b"/p_" + name)))
    for environment in ({}, {"PYTHONIOENCODING": "ascii"}):
        table = _run("predict", flower_bundle, "p_*", folder=tmp_path, environment=environment)
        assert table.returncode == 0, table.stderr
        assert "p_[red]rose.jpg" in table.stdout
        done = _run(
            "predict", flower_bundle, "p_*", "--json", folder=tmp_path, environment=environment
        )
        paths = [row["path"] for row in json.loads(done.stdout)]
        assert {os.fsencode(path) for path in paths} == {b"p_" + name for name in names}
    done = _run("predict", flower_bundle, "p_*", "--csv", "o.csv", folder=tmp_path)
    assert done.returncode == 0
    content = (tmp_path / "o.csv").read_bytes()
    assert all(b"p_" + name in content for name in names)


def test_csv_to_a_device_leaves_it_one(flower_bundle: Path, picture_folder: Path) -> None:
    picture = picture_folder / "cut_00.jpg"
    done = _run("predict", flower_bundle, picture, "--csv", "/dev/null")
    assert done.returncode == 0
    assert Path("/dev/null").is_char_device()


def test_errors_are_one_line_with_their_exit_code(
    flower_bundle: Path, picture_folder: Path, tmp_path: Path
) -> None:
    picture = picture_folder / "cut_00.jpg"
    (tmp_path / "empty").mkdir()
    (tmp_path / "net.pth").write_bytes(b"PK")
    assert "no such bundle" in _failed(1, "predict", tmp_path / "absent", picture)
    assert "resdeploy export" in _failed(1, "predict", tmp_path / "net.pth", picture)
    assert "no pictures there" in _failed(1, "predict", flower_bundle, tmp_path / "empty")
    assert "no fp16 variant" in _failed(1, "predict", flower_bundle, picture, "--precision=fp16")
    csv_file = tmp_path / "absent" / "o.csv"
    assert "cannot be written" in _failed(1, "predict", flower_bundle, picture, "--csv", csv_file)
    if cuda_problem():
        line = _failed(4, "predict", flower_bundle, picture, "--backend", "ort-cuda")
        assert "needs an NVIDIA GPU" in line


def test_a_flipped_byte_is_one_line(
    flower_bundle: Path, picture_folder: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(flower_bundle, tmp_path / "net.bundle"))
    for name in ("fp32.onnx", "manifest.json"):
        whole = (bundle / name).read_bytes()
        content = bytearray(whole)
        content[len(content) // 2] ^= 1
        (bundle / name).write_bytes(content)
        assert name in _failed(1, "predict", bundle, picture_folder)
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
    done = _run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: resdeploy" in done.stderr and "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = _run("--debug", "predict", tmp_path / "absent", "a.jpg")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "BundleError" in done.stderr


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_reader_that_leaves_is_no_error(
    form: tuple[str, ...], flower_bundle: Path, picture_folder: Path
) -> None:
    process = subprocess.Popen(
        [*_COMMAND, "predict", str(flower_bundle), str(picture_folder), *form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


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
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert output == "" and errors.strip() == "interrupted: nothing was left half-written"
    assert [path.name for path in tmp_path.iterdir()] == ["large.png"]


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return 0


# --- inspect


def test_inspect_a_bundle(flower_bundle: Path, tmp_path: Path) -> None:
    done = _run("inspect", flower_bundle, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["kind"], found["architecture"], found["classes"]) == ("bundle", "tiny", 5)
    assert found["input"] == "input float32 (batch, 3, 32, 32)"
    assert found["variants"]["fp32"]["state"] == "intact"
    table = _run("inspect", flower_bundle)
    assert table.returncode == 0 and "sunflowers" in table.stdout
    bundle = Path(shutil.copytree(flower_bundle, tmp_path / "net.bundle"))
    (bundle / "fp32.onnx").write_bytes(b"altered")
    found = json.loads(_run("inspect", bundle, "--json").stdout)
    assert "altered since it was written" in found["variants"]["fp32"]["state"]


def test_inspect_a_lone_graph(flower_bundle: Path) -> None:
    done = _run("inspect", flower_bundle / "fp32.onnx", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["kind"], found["variant"]) == ("ONNX graph", "fp32")
    assert found["input"] == "input float32 (batch, 3, 32, 32)"
    assert found["labels"][0] == "daisy"
    assert found["operators"] == {
        "Conv": 2,
        "Flatten": 1,
        "Gemm": 1,
        "GlobalAveragePool": 1,
        "Relu": 2,
    }
    assert found["opset"] == 17 and found["inputs"] == ["input (batch, 3, 32, 32)"]
    assert "GlobalAveragePool" in _run("inspect", flower_bundle / "fp32.onnx").stdout


def test_inspect_a_graph_of_somebody_else(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 13]>
        other (float[1, 4] x) => (float[1, 4] y) <float[4] w = {1, 2, 3, 4}> { y = Mul (x, w) }
        """
    )
    onnx.save(model, tmp_path / "other.onnx")
    found = json.loads(_run("inspect", tmp_path / "other.onnx", "--json").stdout)
    assert (found["operators"], found["opset"], found["parameters"]) == ({"Mul": 1}, 13, 4)
    assert found["inputs"] == ["x (1, 4)"]
    assert "without resdeploy's metadata" in found["resdeploy"]


def test_inspect_what_is_nothing(tmp_path: Path) -> None:
    assert "no such file or folder" in _failed(1, "inspect", tmp_path / "absent.pth")
    assert "no manifest.json in it" in _failed(1, "inspect", tmp_path)
    (tmp_path / "text.pth").write_text("text")
    assert "text.pth" in _failed(1, "inspect", tmp_path / "text.pth")
    (tmp_path / "text.onnx").write_text("text")
    assert "text.onnx" in _failed(1, "inspect", tmp_path / "text.onnx")


# --- the base installation


def test_without_onnxruntime(
    bare_python: Callable[..., list[str]], flower_bundle: Path, picture_folder: Path
) -> None:
    main = "from resdeploy.deploy.cli import main; main()"
    bare = [*bare_python(), main]
    for model in (flower_bundle, flower_bundle / "fp32.onnx"):
        done = subprocess.run(
            [*bare, "predict", model, picture_folder], capture_output=True, text=True
        )
        assert done.returncode == 4
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ") and "needs onnxruntime, which is not installed" in line
        assert line.endswith("pip install 'resdeploy[runtime]'")
    done = subprocess.run(
        [*bare, "inspect", flower_bundle / "fp32.onnx", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "pip install 'resdeploy[export]'" in json.loads(done.stdout)["operators"]
    done = subprocess.run(
        [*bare, "inspect", flower_bundle, "--json"], capture_output=True, text=True
    )
    assert json.loads(done.stdout)["variants"]["fp32"]["state"] == "intact"
    checkpoint = picture_folder / "cut_00.jpg"
    done = subprocess.run([*bare, "inspect", checkpoint], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "pip install 'resdeploy[export]'" in done.stderr


def test_with_onnxruntime_only(
    bare_python: Callable[..., list[str]], flower_bundle: Path, picture_folder: Path
) -> None:
    name = "onnxruntime-gpu" if _installed("onnxruntime-gpu") else "onnxruntime"
    main = "from resdeploy.deploy.cli import main; main()"
    command = [
        *bare_python(name),
        main,
        "predict",
        str(flower_bundle),
        str(picture_folder),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == _run("predict", flower_bundle, picture_folder, "--json").stdout


def _installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return False
