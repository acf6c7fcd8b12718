"""What the base installation with [cpu] does anywhere: import, predict, write, change a bundle.

python tests/base_program.py BUNDLE IMAGES CSV
"""

import json
import os
import sys
from contextlib import redirect_stdout
from importlib import import_module
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import resdeploy.deploy
from resdeploy.deploy.bundle.bundle import read_bundle, write_manifest
from resdeploy.deploy.bundle.update import changed_bundle
from resdeploy.deploy.cli.main import main
from resdeploy.deploy.temporaries import has_owner, sweep, temporary_folder

# what [cpu] does not bring: servers, clusters, reports, signatures, engines, the hub
_EXTRAS = {
    *("grpc", "uvicorn", "starlette", "prometheus_client", "google", "httptools", "ray", "fsspec"),
    *("jinja2", "matplotlib", "cryptography", "pyarrow", "tensorrt", "pillow_heif", "PIL"),
    *("triton_python_backend_utils", "torch", "onnx", "huggingface_hub"),
}


def import_everything() -> int:
    """Import every module of deploy; only libraries of other extras may be missing."""
    root = Path(str(resdeploy.deploy.__file__)).parent
    count = 0
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        name = ".".join(("resdeploy", "deploy", *(part for part in parts if part != "__init__")))
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _EXTRAS:
                raise
        count += 1
    return count


def command(*words: object) -> Any:
    """What `resdeploy WORDS… --json` prints."""
    sys.argv = ["resdeploy", *map(str, words), "--json", "--debug"]
    output = TextIOWrapper(BytesIO(), encoding="utf-8")
    with redirect_stdout(output):
        try:
            main()
        except SystemExit as end:
            assert end.code == 0, f"{words} ended with {end.code}"
    output.flush()
    assert isinstance(output.buffer, BytesIO)
    return json.loads(output.buffer.getvalue())


def change(bundle: Path) -> None:
    """Add a file, and see that nothing of the work is left beside the bundle."""
    before = read_bundle(bundle)
    with changed_bundle(before) as folder:
        (folder / "note.txt").write_text("kept", encoding="utf-8")
        write_manifest(folder, before.manifest)
    assert (bundle / "note.txt").read_text(encoding="utf-8") == "kept"
    assert [path.name for path in bundle.parent.iterdir() if ".new." in path.name] == []


def owners(folder: Path) -> tuple[bool, bool]:
    """Whether what is being made has an owner, and what nobody makes any more is swept."""
    left = folder / f".gone.new.{2**22 + 1}.0f"
    left.mkdir()
    with temporary_folder(folder / "made") as temporary:
        owned = has_owner(temporary)
        sweep(folder)
        owned = owned and temporary.is_dir()
    return owned, not left.exists()


def run(bundle: Path, images: Path, csv: Path) -> None:
    """All of it; one line of JSON says what was done."""
    modules = import_everything()
    answers = command("predict", bundle, images, "--csv", csv)
    command("inspect", bundle)
    command("doctor")
    change(bundle)
    assert command("predict", bundle, images) == answers
    owned, swept = owners(bundle.parent)
    facts = {"modules": modules, "images": len(answers), "owner": owned, "swept": swept}
    print(json.dumps({"system": sys.platform, "name": os.name, **facts}))


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:]))
