"""Labelled images that speak for another preprocessing make an export switch, and it says so."""

from pathlib import Path

import pytest
import torch

from resdeploy.deploy.images.dataset import read_data
from resdeploy.deploy.images.preprocess import named
from resdeploy.export import ExportOptions, export_checkpoint
from resdeploy.export.proof.preprocessing import fit_preprocess
from tests.fakes import FakeSession

_LABELS = ("red", "green", "blue")
_FACTORY = """
from torch import nn
def make():
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
"""


def test_an_export_switches_to_what_the_images_speak_for(
    faint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strongest_channel.py").write_text(_FACTORY)
    monkeypatch.chdir(tmp_path)
    identity = torch.eye(3)
    state = {
        "0.weight": identity[:, :, None, None], "0.bias": torch.zeros(3),
        "3.weight": identity, "3.bias": torch.zeros(3),
    }  # fmt: skip
    torch.save(state, tmp_path / "colours.pth")
    (tmp_path / "labels.txt").write_text("\n".join(_LABELS))
    options = ExportOptions(
        output=tmp_path / "colours.bundle",
        arch="strongest_channel:make",
        classes=tmp_path / "labels.txt",
        input_size_px=8,
        data=faint,
        precisions=("fp32",),
    )
    report = export_checkpoint(tmp_path / "colours.pth", options)
    (sentence,) = (s for s in report.manifest.assumptions if s.startswith("preprocessing is"))
    assert report.manifest.preprocess == named("half", 8)
    assert "'half': it fits significantly better than 'imagenet' (p = " in sentence
    assert "on 90 of your labelled images: imagenet 6" in sentence and "half 100.0 %" in sentence
    assert "change with --preprocess" in sentence
    assert report.accuracy == {"pytorch": 100.0, "fp32": 100.0}


def test_the_assumed_one_stays_where_it_fits_best(faint: Path) -> None:
    images = read_data(faint, _LABELS)
    chosen, sentence = fit_preprocess(named("half", 8), images, FakeSession())
    assert chosen == named("half", 8)
    assert "preprocessing is 'half': it fits best" in sentence


def test_the_assumed_one_stays_where_the_evidence_is_weak(faint: Path) -> None:
    images = read_data(faint, _LABELS).spread(6)  # too few for McNemar's test, whatever they say
    chosen, sentence = fit_preprocess(named("imagenet", 8), images, FakeSession())
    assert chosen == named("imagenet", 8)
    assert "no other fits significantly better" in sentence
