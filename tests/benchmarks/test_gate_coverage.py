"""The study of the gate's coverage: a known model of the truth is found, and its drop is held."""

from pathlib import Path

import gate_coverage
import numpy as np
import pytest


def test_intervals_hold_the_drop_of_labels_drawn_from_a_fitted_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (1500, 4)).astype(np.float32)
    exponents = np.exp(logits * np.array([0.7, 1.0, 1.0, 1.3]) + np.array([0.5, 0, 0, -0.5]))
    true = exponents / exponents.sum(axis=1, keepdims=True)
    truth = (random.random((1500, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    chances = gate_coverage.fitted_chances(logits.astype(np.float64), truth)
    assert np.abs(chances - true).mean() < 0.03
    file = tmp_path / "made_up.npz"
    noisy = logits + random.normal(0, 0.2, logits.shape).astype(np.float32)
    np.savez(file, truth=truth, fp32=logits, int8=noisy)
    reference, found, _ = gate_coverage.graphs(file)
    assert list(found)[:3] == ["int8 x1", "int8 x2", "int8 x3"] and len(found) == 9
    drop, *shares = gate_coverage.coverage(reference, found["int8 x2"], chances, 200, 10)
    assert 0 < drop < 5 and min(shares[:3]) >= 70
    gate_coverage.study(file, [100], 2)
    assert "made_up 100 images: logits " in capsys.readouterr().out
