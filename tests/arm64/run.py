"""Runs resdeploy on Arm without an Arm machine: `make arm64-test [ARGS="BUNDLE IMAGES"]`.

A Debian arm64 root, aarch64 wheels of resdeploy's base install and of onnxruntime, and qemu's user
emulation run `resdeploy predict` and `resdeploy verify` on a bundle, and the logits for its
reference images are compared with x86: float to 1e-3, INT8 by the share of equal top-1 classes.
It proves that the base install holds neither x86 code nor torch. Emulated speed says nothing about
a device, and there is no GPU in it. Without a bundle named, the example's digits are exported and
quantized first.

Needs the Debian packages debootstrap and qemu-user-static, and root for debootstrap. What it
downloads stays in build/arm64 for the next run.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
EXAMPLES = REPOSITORY / "examples"
WORK = REPOSITORY / "build" / "arm64"
ROOT, WHEELS, SITE = WORK / "root", WORK / "wheels", WORK / "site"

SUITE, PYTHON = "bookworm", "3.11"
PLATFORMS = [f"manylinux_2_{glibc}_aarch64" for glibc in (36, 35, 34, 31, 28, 27, 17)]
PLATFORMS.append("manylinux2014_aarch64")
# What JetPack 6's Python gets. 1.32.0 ends with a segmentation fault on import under qemu 7.2.
ONNXRUNTIME = "onnxruntime==1.23.2"
ELF_MACHINE_AARCH64 = 0xB7

# Largest difference of a logit; half's is a share of the largest logit, for Arm adds in half.
FLOAT_TOLERANCE = 1e-3
HALF_TOLERANCE = 1e-2
LEAST_INT8_AGREEMENT = 0.9

COMMAND_LINE = "from resdeploy.deploy.cli.main import main; main()"

# Runs on both machines: logits of the reference images in every precision the bundle holds.
LOGITS = """
import sys, numpy as np
from resdeploy.deploy import load, read_bundle
from resdeploy.deploy.bundle.reference import read_reference
bundle, target = sys.argv[1:]
inputs = read_reference(__import__("pathlib").Path(bundle) / "reference.npz").inputs[:8]
held = read_bundle(__import__("pathlib").Path(bundle)).manifest.variants
found = {}
for precision in ("fp32", "fp16", "int8"):
    if any(name.startswith(precision) for name in held):
        with load(bundle, precision=precision, backend="ort-cpu") as classifier:
            found[precision] = np.concatenate([classifier.logits(x[None]) for x in inputs])
assert "torch" not in sys.modules and "onnx" not in sys.modules
np.savez(target, **found)
"""


def main() -> int:
    """Prepare what is missing, run, compare; the exit status."""
    if len(sys.argv) not in (1, 3):
        raise SystemExit("usage: run.py [BUNDLE IMAGES]")
    check_tools()
    bundle, images = (Path(word).resolve() for word in sys.argv[1:] or prepare_bundle())
    prepare_root()
    prepare_site()
    check_site()

    start = time.monotonic()
    say(emulated("-c", "import platform; print(platform.machine(), platform.python_version())"))
    few = sorted(images.rglob("*.png"))[:2] or sorted(images.rglob("*.jpg"))[:2]
    cli = ("-c", COMMAND_LINE)
    answers = json.loads(emulated(*cli, "predict", bundle, *few, "--top", "1", "--json"))
    for answer in answers:
        best = answer["predictions"][0]
        say(f"predict {Path(answer['path']).name}: {best['label']} {best['probability']:.1%}")
    verdict = json.loads(emulated(*cli, "verify", bundle, "--json", may_fail=True))
    say(f"verify: {verdict['verdict']}")

    emulated("-c", LOGITS, bundle, WORK / "arm64.npz")
    subprocess.run([sys.executable, "-c", LOGITS, bundle, WORK / "x86.npz"], check=True)
    right = all([compare(*pair) for pair in pairs()])
    say(f"{time.monotonic() - start:.0f} s under emulation: {'passed' if right else 'FAILED'}")
    return 0 if right and verdict["verdict"] != "fail" else 1


def check_tools() -> None:
    """End with the command that installs what lacks."""
    for tool in ("debootstrap", "qemu-aarch64-static"):
        if shutil.which(tool) is None:
            raise SystemExit(
                f"error: {tool} is not installed: apt-get install debootstrap qemu-user-static"
            )


def prepare_bundle() -> tuple[Path, Path]:
    """The example's digits in every precision, and images of them."""
    bundle, images = WORK / "digits.bundle", WORK / "images"
    if not (bundle / "int8.onnx").exists():
        say("exporting and quantizing the example's digits")
        sys.path.insert(0, str(EXAMPLES))
        from digits import write_images

        write_images("train", images)
        sizes = ["--input-size", "64", "--resize", "64", "--precision", "fp32,fp16,int8"]
        command = [sys.executable, "-c", COMMAND_LINE, "export"]
        command += [str(EXAMPLES / "digits_mobilenet_v2.pth"), "-o", str(bundle), "--overwrite"]
        run_quietly([*command, *sizes, "--calib", str(images)])
    return bundle, images


def prepare_root() -> None:
    """A Debian arm64 root with Python: its packages unpacked, none of its scripts run."""
    if (ROOT / "usr/bin" / f"python{PYTHON}").exists():
        return
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    say(f"preparing Debian {SUITE} for arm64 in {ROOT}")
    command = ["debootstrap", "--arch=arm64", "--foreign", "--variant=minbase"]
    run_quietly([*command, "--include=python3", SUITE, str(ROOT)])
    for package in sorted((ROOT / "var/cache/apt/archives").glob("*.deb")):
        run_quietly(["dpkg", "-x", str(package), str(ROOT)])


def prepare_site() -> None:
    """resdeploy's wheel as it stands, and aarch64 wheels of what it and onnxruntime need."""
    say("building resdeploy's wheel and fetching aarch64 wheels")
    WHEELS.mkdir(parents=True, exist_ok=True)
    for old in (*WHEELS.glob("resdeploy-*.whl"), *WHEELS.glob("onnxruntime-*.whl")):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run_quietly([*pip, "wheel", "--no-deps", "--wheel-dir", str(WHEELS), str(REPOSITORY)])
    (wheel,) = WHEELS.glob("resdeploy-*.whl")
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    target = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
    download = ["download", *target, *platforms, "--dest", str(WHEELS)]
    run_quietly([*pip, *download, "--find-links", str(WHEELS), str(wheel), ONNXRUNTIME])
    shutil.rmtree(SITE, ignore_errors=True)
    for archive in sorted(WHEELS.glob("*.whl")):
        zipfile.ZipFile(archive).extractall(SITE)


def check_site() -> None:
    """No x86 code, no torch."""
    libraries = [path for path in SITE.rglob("*") if ".so" in path.suffixes]
    foreign = [path for path in libraries if elf_machine(path) != ELF_MACHINE_AARCH64]
    if foreign:
        raise SystemExit(f"error: not for Arm: {', '.join(map(str, foreign))}")
    heavy = [name for name in ("torch", "onnx", "tensorrt") if (SITE / name).exists()]
    if heavy:
        raise SystemExit(f"error: the base install brings {', '.join(heavy)}")
    distributions = sorted(path.name for path in SITE.glob("*.dist-info"))
    names = ", ".join(name.removesuffix(".dist-info") for name in distributions)
    say(f"{len(libraries)} libraries, all aarch64; {names}")


def elf_machine(path: Path) -> int | None:
    """The machine an ELF file is for; None where it is no ELF file."""
    with path.open("rb") as file:
        head = file.read(20)
    return int.from_bytes(head[18:20], "little") if head[:4] == b"\x7fELF" else None


def emulated(*arguments: str | Path, may_fail: bool = False) -> str:
    """What the arm64 Python prints."""
    python = ROOT / "usr/bin" / f"python{PYTHON}"
    command = ["qemu-aarch64-static", "-cpu", "max", "-L", str(ROOT), str(python)]
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SITE), "LC_ALL": "C.UTF-8"}
    result = subprocess.run(
        [*command, *map(str, arguments)], env=clean, capture_output=True, text=True
    )
    if result.returncode != 0 and not (may_fail and result.stdout):
        raise SystemExit(f"error: status {result.returncode} on arm64:\n{result.stderr[-2000:]}")
    return result.stdout.strip()


def pairs() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Precision, logits on arm64, logits on x86."""
    with np.load(WORK / "arm64.npz") as arm, np.load(WORK / "x86.npz") as x86:
        for precision in x86.files:
            yield precision, arm[precision], x86[precision]


def compare(precision: str, arm: np.ndarray, x86: np.ndarray) -> bool:
    """Whether the two machines agree, and say how well."""
    difference = float(np.abs(arm - x86).max())
    agreement = float((arm.argmax(1) == x86.argmax(1)).mean())
    say(
        f"{precision}: logits differ by at most {difference:.2g}, "
        f"{agreement:.0%} of {len(arm)} images in the same class"
    )
    if precision == "int8":
        return agreement >= LEAST_INT8_AGREEMENT
    if precision == "fp16":
        return difference <= HALF_TOLERANCE * float(np.abs(x86).max())
    return difference <= FLOAT_TOLERANCE


def run_quietly(command: list[str]) -> None:
    """Run a command whose output matters only when it fails."""
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        said = (result.stdout + result.stderr)[-2000:]
        raise SystemExit(f"error: {' '.join(command[:3])} … failed:\n{said}")


def say(text: str) -> None:
    """A line of the report."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
