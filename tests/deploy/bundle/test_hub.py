"""Bundles on a stand-in for the Hugging Face Hub, with its real client: there and back."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resdeploy.deploy.bundle.hub import address_of, bundle_name, fetch, is_address
from resdeploy.deploy.errors import InputError
from tests.hub import TOKEN, Hub, running_hub

_ROOT = Path(__file__).resolve().parents[3]
# one interpreter for several commands: the client reads where its Hub is when it is imported
_PROGRAM = """
import json, sys
from tests.command import run_command
for words in json.loads(sys.argv[1]):
    done = run_command(*words)
    print(json.dumps([done.returncode, done.stdout, done.stderr]))
"""

Talk = Callable[..., list[tuple[int, str, str]]]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture
def talk(hub: Hub, tmp_path: Path) -> Talk:
    """A function: commands → exit code, stdout and stderr of each, with the Hub at that address."""

    def run(*commands: list[Any], token: str = TOKEN, url: str = hub.url) -> Any:
        environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"),
                       "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
        words = json.dumps([[str(word) for word in command] for command in commands])
        done = subprocess.run([sys.executable, "-c", _PROGRAM, words], cwd=_ROOT, check=True,
                              env=environment, capture_output=True, text=True)  # fmt: skip
        return [tuple(json.loads(line)) for line in done.stdout.splitlines()]

    return run


@pytest.mark.slow
def test_there_and_back(
    hub: Hub, talk: Talk, flower_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "flowers.bundle"
    shutil.copytree(flower_bundle, bundle)
    (bundle / "engines").mkdir()
    (bundle / "engines" / "fp16.engine").write_bytes(b"of this machine")
    image = image_folder / "cut_00.jpg"
    at = "hf://me/flowers"
    pushed, here, there, again = talk(
        ["push", bundle, "me/flowers", "--json"],
        ["predict", bundle, image, "--json"],
        ["predict", at, image, "--json"],
        ["predict", f"{at}@main", image],
    )
    assert pushed[0] == 0, pushed[2]
    found = hub.repositories["me/flowers"]
    commit = json.loads(pushed[1])["commit"]
    files = found.commits[commit]
    assert commit == found.branches["main"]
    assert set(files) == {".gitattributes", "README.md", "manifest.json", "fp32.onnx"}
    assert files["fp32.onnx"] == (bundle / "fp32.onnx").read_bytes()
    assert "hf://me/flowers" in files["README.md"].decode()
    assert there == here and there[0] == 0 and there[2] == ""
    assert f"resdeploy verify {at}@{commit} --data DIR" in again[2]
    asked = [line for line in hub.asked if line.startswith("GET") and "fp32.onnx" in line]
    assert len(asked) == 1  # the second command took what the first had fetched


@pytest.mark.slow
def test_what_is_not_there_is_one_line(hub: Hub, talk: Talk, flower_bundle: Path) -> None:
    image = "photo.jpg"
    hub.repositories.pop("me/plain", None)
    pushed, missing, revision, quantized = talk(
        ["push", flower_bundle, "me/plain", "--revision", "try"],
        ["predict", "hf://me/missing", image],
        ["predict", "hf://me/plain@v9", image],
        ["quantize", "hf://me/plain", "--calib", "."],
    )
    assert pushed[0] == 0 and "hf://me/plain@try" in pushed[2]
    assert set(hub.repositories["me/plain"].branches) == {"main", "try"}
    assert "manifest.json" not in hub.repositories["me/plain"].commits[
        hub.repositories["me/plain"].branches["main"]
    ]  # fmt: skip
    assert missing[0] == 1 and "hf://me/missing: no such repository" in missing[2]
    assert revision[0] == 1 and "hf://me/plain@v9: no such branch" in revision[2]
    assert quantized[0] == 2 and "only read" in quantized[2]
    assert all(len(answer[2].splitlines()) == 1 for answer in (missing, revision))


@pytest.mark.slow
def test_a_wrong_token_and_a_hub_out_of_reach(hub: Hub, talk: Talk, flower_bundle: Path) -> None:
    (refused,) = talk(["push", flower_bundle, "me/other"], token="hf_wrong")
    assert refused[0] == 1 and "me/other: the Hub refuses (401)" in refused[2]
    assert "me/other" not in hub.repositories
    (away,) = talk(["predict", "hf://me/flowers", "photo.jpg"], url="http://127.0.0.1:9")
    assert away[0] == 1 and "cannot be reached" in away[2]


@pytest.mark.slow
def test_an_altered_file_is_not_pushed(
    hub: Hub, talk: Talk, flower_bundle: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "altered.bundle"
    shutil.copytree(flower_bundle, bundle)
    with (bundle / "fp32.onnx").open("r+b") as file:
        file.write(b"x")
    (done,) = talk(["push", bundle, "me/altered"])
    assert done[0] == 1 and "altered since it was written" in done[2]
    assert "me/altered" not in hub.repositories


@pytest.mark.parametrize("address", ["hf://flowers", "hf://me/flowers/fp32", "hf://", "hf:/a b/c"])
def test_an_address_has_an_owner_and_a_name(address: str) -> None:
    assert is_address(address)
    with pytest.raises(InputError, match="expected hf://OWNER/NAME"):
        fetch(address)


def test_what_was_fetched_has_its_address_and_name() -> None:
    commit = "0123456789" * 4
    path = Path(f"/cache/hub/models--me--flowers-v2/snapshots/{commit}")
    assert address_of(path) == f"hf://me/flowers-v2@{commit}"
    assert bundle_name(path) == "flowers-v2"
    assert address_of(Path("flowers.bundle")) is None
    assert bundle_name(Path("flowers.bundle")) == "flowers"
    assert (
        is_address(Path("hf://me/flowers"))
        and not is_address("flowers.bundle")
        and not is_address("https://me/flowers")
    )
