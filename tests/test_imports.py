"""Importing resdeploy costs nothing: no heavy library, in a fresh interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("deploy", "export", "calibration")
_HEAVY = ("torch", "torchvision", "onnx", "onnx_ir", "onnxscript", "onnxsim", "onnxruntime",
          "tensorrt", "tensorrt_rtx", "sklearn", "matplotlib")  # fmt: skip


def _imported(code: str) -> set[str]:
    """The top-level modules a fresh interpreter holds after running `code`."""
    program = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def _modules(package: str) -> list[tuple[str, str]]:
    """Every module of a package as (path from the root, dotted name)."""
    found = []
    for file in sorted((_ROOT / package).rglob("*.py")):
        parts = file.relative_to(_ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        found.append((file.relative_to(_ROOT).as_posix(), ".".join(("resdeploy", *parts))))
    return found


def _named_for_a_library() -> set[str]:
    """The files that pyproject.toml lets import a heavy library at their top."""
    ruff = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    return {file for file, rules in ruff["per-file-ignores"].items() if "TID253" in rules}


def test_the_three_packages_and_the_command_import_nothing_heavy() -> None:
    names = _imported(
        "import resdeploy.deploy, resdeploy.export, resdeploy.calibration\n"
        "import resdeploy.deploy.cli.main\n"
        "from resdeploy.deploy import load, read_bundle"
    )
    assert not names.intersection(_HEAVY)


def test_help_of_every_command_imports_nothing_but_click() -> None:
    # half of the 0.25 s that --help may take are Python's and click's own
    names = _imported(
        "from click.testing import CliRunner\n"
        "from resdeploy.deploy.cli.main import cli\n"
        "for words in [], *([name] for name in cli.list_commands(None)):\n"
        "    assert CliRunner().invoke(cli, [*words, '--help']).exit_code == 0, words"
    )
    assert not names.intersection({*_HEAVY, "numpy", "PIL", "rich"})


def test_every_module_of_deploy_not_named_for_a_library_imports_without_one() -> None:
    # A light module that imports a heavy one of ours at its top passes ruff, but not this.
    named = _named_for_a_library()
    light = [name for path, name in _modules("deploy") if path not in named]
    assert len(light) > 10
    if _imported("\n".join(f"import {name}" for name in light)).intersection(_HEAVY):
        guilty = [name for name in light if _imported(f"import {name}").intersection(_HEAVY)]
        pytest.fail(f"these import a heavy library through another module: {guilty}")


def test_the_front_doors_of_export_and_calibration_import_nothing_heavy() -> None:
    # a name that does not exist fails here: the fresh interpreter cannot import it
    doors = ("resdeploy.export.pipeline", "resdeploy.calibration.pipeline",
             "resdeploy.deploy.cli.conversion.export",
             "resdeploy.deploy.cli.conversion.quantize")  # fmt: skip
    names = _imported("\n".join(f"import {name}" for name in doors))
    assert not names.intersection(_HEAVY)


@pytest.mark.slow
@pytest.mark.parametrize(("package", "forbidden"), [
    ("deploy", {"torch", "torchvision", "onnx", "onnx_ir", "onnxscript", "onnxsim"}),
    ("calibration", {"torch", "torchvision", "onnx_ir"}),
])  # fmt: skip
def test_no_module_of_a_package_imports_what_is_forbidden_to_it(
    package: str, forbidden: set[str]
) -> None:
    # libraries of other machines (TensorRT) may be missing here; our own modules may not
    program = "\n".join(
        f"try: import {name}\n"
        "except ModuleNotFoundError as e: assert not e.name.startswith('resdeploy'), e"
        for _, name in _modules(package)
    )
    assert not _imported(program).intersection(forbidden)


def test_the_folder_names_are_not_importable_by_themselves() -> None:
    # `export` and `deploy` are other distributions' names; our modules have one name each
    program = "from importlib.util import find_spec\n" + "\n".join(
        f"spec = find_spec({name!r}); assert spec is None or {str(_ROOT)!r} not in str(spec), spec"
        for name in _PACKAGES
    )
    subprocess.run([sys.executable, "-c", program], cwd=_ROOT.parent, check=True)
