"""`resdeploy push` refuses before it asks the Hub; what it sends is tested in test_hub.py."""

import sys
from pathlib import Path

import pytest

from tests.command import run_command


def test_what_cannot_be_pushed_is_one_line(flower_bundle: Path, tmp_path: Path) -> None:
    done = run_command("push", tmp_path, "me/flowers")
    assert done.returncode == 1 and "no manifest.json in it" in done.stderr
    done = run_command("push", flower_bundle, "me/flowers", "--license", "My licence")
    assert done.returncode == 1 and "'My licence' is no licence" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_the_client_the_extra_is_named(
    flower_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for words in (("push", flower_bundle, "me/flowers"), ("inspect", "hf://me/flowers")):
        done = run_command(*words)
        assert done.returncode == 1 and "needs huggingface_hub" in done.stderr
        assert "[hub]" in done.stderr and len(done.stderr.splitlines()) == 1
