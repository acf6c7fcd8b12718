"""Three releases of one network in a repository of their own: what each of them shows.

`RELEASE_WALK=DIR` keeps the comments, the pages and the history (docs/release-walk.md shows them).
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from resdeploy.export import ExportOptions, export_checkpoint
from tests.deploy.verification.ci_steps import Shell, shell_in, steps, write_gh

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

_ROOT = Path(__file__).resolve().parents[3]
# the bias of one class in each release, beside that of the checkpoint (index, logits): on the 1000
# images v1 gets 79.1 %, v2 80.1 %, v3 78.0 %
_RELEASES = {"v1": (1, -3.0), "v2": (0, 0.0), "v3": (4, 3.0)}


def _export(shared_data: Path, folder: Path, name: str) -> Path:
    """A release: ResNet-20 of CIFAR-10 with one bias of its head shifted."""
    import torch

    source = shared_data / "checkpoints" / "cifar10_resnet20.th"
    state = torch.load(source, map_location="cpu", weights_only=True)["state_dict"]
    index, shift = _RELEASES[name]
    state["module.linear.bias"][index] += shift
    checkpoint = folder / f"{name}.pth"
    torch.save(state, checkpoint)
    options = ExportOptions(
        output=folder / f"{name}.bundle",
        classes=shared_data / "cifar10_class_indices.json",
        preprocess="cifar",
        precisions=("fp32",),
    )
    return export_checkpoint(checkpoint, options).bundle


def _git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=walk", "-c", "user.email=walk@localhost")
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _job(repository: Path, shell: Shell, against: str) -> tuple[int, str, dict[str, str]]:
    """The action's steps on a pull request: exit code, the comment, the outputs."""
    _, verify, comment = steps((_ROOT / "action.yml").read_text())
    text = (_ROOT / "action.yml").read_text()
    names = re.findall(r"^        ([A-Z0-9_]+): \$\{\{ inputs\.", text, re.M)
    given = dict.fromkeys(names, "") | {
        "BUNDLE": "classifier.bundle", "DATA": "val", "MAX_DROP": "0", "AGAINST": against,
        "RECORD": "history.jsonl", "HTML": "report.html", "JUNIT": "verify.xml",
        "GITHUB_SHA": _git(repository, "rev-parse", "HEAD"),
    }  # fmt: skip
    (repository / "output.txt").unlink(missing_ok=True)
    done = shell(verify, **given)
    lines = (repository / "output.txt").read_text().splitlines()
    run = "https://github.com/o/r/actions/runs/1"
    shell(comment, REPOSITORY="o/r", NUMBER="5", RUN=run, GH_TOKEN="t")
    written = (repository / "resdeploy-comment.md").read_text()
    return done.returncode, written, dict(line.split("=", 1) for line in lines)


def _keep(repository: Path, name: str) -> None:
    """Copy what a person would look at to where it was asked for."""
    if "RELEASE_WALK" in os.environ:
        folder = Path(os.environ["RELEASE_WALK"]) / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("resdeploy-comment.md", "report.html", "history.jsonl", "output.txt"):
            shutil.copy(repository / file, folder / file)


def test_a_better_release_passes_and_a_worse_one_is_stopped_and_marked(
    shared_data: Path, tmp_path: Path
) -> None:
    repository, releases = tmp_path / "repository", tmp_path / "releases"
    for folder in (repository, releases):
        folder.mkdir()
    _git(repository, "init", "-q")
    (repository / "val").symlink_to(shared_data / "cifar10" / "val")
    shell = shell_in(repository)
    write_gh(repository, answer="17", writes=True)
    found = {}
    before = ""
    for name in _RELEASES:
        bundle = _export(shared_data, releases, name)
        shutil.rmtree(repository / "classifier.bundle", ignore_errors=True)
        shutil.copytree(bundle, repository / "classifier.bundle")
        _git(repository, "add", "classifier.bundle")
        _git(repository, "commit", "-q", "-m", name)
        found[name] = _job(repository, shell, before)
        _keep(repository, name)
        before = str(bundle) if name != "v3" else before
    assert [code for code, _, _ in found.values()] == [0, 0, 3]
    assert [outputs["verdict"] for _, _, outputs in found.values()] == ["pass", "pass", "fail"]
    gained, lost = (found[name][1] for name in ("v2", "v3"))
    assert re.search(r"PASSED \d+ checks: fp32 gained 0\.\d\d points against v1\.bundle", gained)
    assert re.search(r"FAILED \d of \d+ checks: fp32 lost [12]\.\d\d points against v2\.b", lost)
    assert "[The run and its files](" in lost and "<details><summary>fp32: 44 changed" in lost
    assert "deer" in lost and float(found["v3"][2]["drop"]) == pytest.approx(2.1)
    page = (repository / "report.html").read_text()
    assert re.search(r"<h1>FAILED \d of \d+ checks: fp32 lost [12]\.\d\d points against v2", page)
    shown = shell("resdeploy history history.jsonl").stdout
    commits = _git(repository, "log", "--format=%h", "--abbrev=7").splitlines()
    assert all(commit in shown for commit in commits)
    assert "fp32: run 3 is the first that was worse beyond noise: 2.10 points below run 2" in shown
    if "RELEASE_WALK" in os.environ:
        (Path(os.environ["RELEASE_WALK"]) / "history.txt").write_text(shown)
