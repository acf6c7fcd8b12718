"""docs/ci.md and action.yml are true: their shell steps are run here as they are written."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from resdeploy.deploy import assert_accuracy
from resdeploy.deploy.arrays import Float32s
from tests.deploy.verification.ci_steps import Shell, shell_in, steps, write_gh

WriteBundle = Callable[..., Path]

_ROOT = Path(__file__).resolve().parents[3]
_WHEEL = "resdeploy-0.2.0-py3-none-any.whl"
_BROKEN = np.array([-0.5, 0, 0], np.float32)


def _fenced(language: str) -> list[str]:
    text = (_ROOT / "docs" / "ci.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def workplace(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> Shell:
    """A user's repository with a bundle and images; returns a function that runs a script in it.

    `pip` is replaced by a command that only writes down what it was asked to install.
    """
    both = {"fp32": identity, "int8": identity}
    write_bundle(tmp_path / "flowers.bundle", both)
    write_bundle(tmp_path / "bad.bundle", both, bias={"int8": _BROKEN})
    shutil.copytree(colours, tmp_path / "photos" / "val")
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci" / _WHEEL).write_bytes(b"")
    return shell_in(tmp_path)


@pytest.mark.slow
def test_the_workflow_is_green_then_red_after_the_int8_graph_went_bad(
    tmp_path: Path, workplace: Shell
) -> None:
    _, once, ratchet = _fenced("console")
    install, verify = steps(_fenced("yaml")[0])
    assert workplace(once.removeprefix("$ ")).returncode == 0
    assert workplace(install).returncode == 0
    assert f"ci/{_WHEEL}[cpu]" in (tmp_path / "installed.txt").read_text()
    green = workplace(verify)
    assert green.returncode == 0, green.stderr
    assert "resdeploy verify: pass" in (tmp_path / "summary.md").read_text()
    shutil.rmtree(tmp_path / "flowers.bundle")
    (tmp_path / "bad.bundle").rename(tmp_path / "flowers.bundle")
    red = workplace(verify)
    assert red.returncode == 3
    assert "::error title=resdeploy int8 max-drop::" in red.stderr
    summary = (tmp_path / "summary.md").read_text()
    assert "resdeploy verify: fail" in summary and "000.png" in summary
    assert (tmp_path / "verify.xml").is_file() and (tmp_path / "verify.json").is_file()
    before = (tmp_path / "ci" / "baseline.json").read_bytes()
    assert workplace(ratchet.removeprefix("$ ")).returncode == 3
    assert (tmp_path / "ci" / "baseline.json").read_bytes() == before


def test_the_snippets_have_the_form_that_their_systems_read_and_keep_the_report() -> None:
    """What `verify` writes is what the system is told to collect."""
    github, step, gitlab = (yaml.safe_load(block) for block in _fenced("yaml"))
    *_, verify, kept = github["jobs"]["verify"]["steps"]
    assert kept["if"] == "always()" and kept["with"]["path"] == "verify.*"
    assert "--junit verify.xml" in verify["run"] and "> verify.json" in verify["run"]
    inputs = yaml.safe_load((_ROOT / "action.yml").read_text())["inputs"]
    assert set(step[0]["with"]) <= set(inputs)
    (job,) = gitlab.values()
    assert set(job) == {"image", "script", "artifacts"} and job["artifacts"]["when"] == "always"
    assert f"--junit {job['artifacts']['reports']['junit']}" in job["script"][-1]
    (pipeline,) = _fenced("groovy")
    code = re.sub(r"'[^'\n]*'", "''", pipeline)  # its strings taken out, brackets must close
    depths = np.cumsum([(c in "({") - (c in ")}") for c in code])
    assert depths.min() == 0 and depths[-1] == 0 and "'" not in code.replace("''", "")
    assert re.findall(r"junit '(.*)'", pipeline) == re.findall(r"--junit (\S+)'", pipeline)


@pytest.mark.slow
def test_the_gitlab_script_runs(workplace: Shell) -> None:
    assert workplace(_fenced("console")[1].removeprefix("$ ")).returncode == 0
    block = _fenced("yaml")[2].partition("script:\n")[2].partition("  artifacts:")[0]
    script = "\n".join(line.strip().removeprefix("- ") for line in block.splitlines())
    done = workplace(script)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "code"), [("flowers.bundle", 0), ("bad.bundle", 3)])
def test_the_action_decides(
    tmp_path: Path,
    workplace: Shell,
    bundle: str,
    code: int,
) -> None:
    install, verify, _ = steps((_ROOT / "action.yml").read_text())
    assert workplace(install, HTML="").returncode == 0
    assert f"{_ROOT}[cpu]" in (tmp_path / "installed.txt").read_text()
    assert workplace(install, HTML="page.html").returncode == 0
    assert f"{_ROOT}[cpu,report]" in (tmp_path / "installed.txt").read_text()
    names = re.findall(
        r"^        ([A-Z0-9_]+): \$\{\{ inputs\.", (_ROOT / "action.yml").read_text(), re.M
    )
    given = dict.fromkeys(names, "") | {
        "BUNDLE": bundle, "DATA": "photos/val", "MAX_DROP": "2", "STRICT": "true",
        "PRECISION": "fp32,int8", "JUNIT": "out.xml", "HTML": "page.html",
    }  # fmt: skip
    done = workplace(verify, **given)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "out.xml").is_file() and (tmp_path / "page.html").is_file()
    lines = (tmp_path / "output.txt").read_text().splitlines()
    outputs = dict(line.split("=") for line in lines)
    assert outputs["verdict"] == ("fail" if code else "pass")
    assert float(outputs["drop"]) == pytest.approx(21 if code else 0, abs=0.5)
    assert float(outputs["top1"]) == pytest.approx(100 - float(outputs["drop"]), abs=1e-3)
    assert outputs["report"] == "page.html"
    assert "## resdeploy verify" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(("answer", "writes"), [("", True), ("17\n23", True), ("", False)])
def test_one_comment_is_written_then_changed_and_a_fork_does_without(
    tmp_path: Path,
    workplace: Shell,
    answer: str,
    writes: bool,
) -> None:
    write_gh(tmp_path, answer=answer, writes=writes)
    (tmp_path / "resdeploy-verify.md").write_text("## resdeploy verify: pass\n")
    *_, comment = steps((_ROOT / "action.yml").read_text())
    run = "https://github.com/o/r/actions/runs/1"
    page = f"{run}/artifacts/2" if writes else ""
    given = {"REPOSITORY": "o/r", "NUMBER": "5", "RUN": run, "GH_TOKEN": "t", "PAGE": page}
    done = workplace(comment, BUNDLE='my "flowers".bundle', **given)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked.txt").read_text().splitlines()
    start = "api --method PATCH repos/o/r/issues/comments/17" if answer else "api repos/o/r"
    assert asked[-1].startswith(start) and asked[-1].endswith("-F body=@resdeploy-comment.md")
    assert ("::notice::no comment" in done.stdout) == (not writes)
    text = (tmp_path / "resdeploy-comment.md").read_text()
    mark = "<!-- resdeploy verify my__flowers_.bundle -->"
    assert text.startswith(f"{mark}\n## resdeploy verify: pass")
    assert mark in asked[0]
    assert text.endswith(f"[The run and its files]({run})\n")
    assert (f"[The page]({page}), " in text) == writes


@pytest.mark.slow
def test_the_jenkins_script_runs(
    workplace: Shell,
) -> None:
    assert workplace(_fenced("console")[1].removeprefix("$ ")).returncode == 0
    (pipeline,) = _fenced("groovy")
    scripts = re.findall(r"sh '(.*)'", pipeline)
    assert len(scripts) == 2
    for script in scripts:
        done = workplace(script.replace('\\"', '"'))
        assert done.returncode == 0, done.stderr


def test_the_helper_for_ones_own_tests(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    both = {"fp32": identity, "int8": identity}
    good = write_bundle(tmp_path / "good", both)
    assert assert_accuracy(good, data=colours, max_drop=2).verdict == "pass"
    bad = write_bundle(tmp_path / "bad", both, bias={"int8": _BROKEN})
    with pytest.raises(AssertionError, match=r"int8: top-1 drop is .* points .*, limit: 2"):
        assert_accuracy(bad, data=colours, max_drop=2)
