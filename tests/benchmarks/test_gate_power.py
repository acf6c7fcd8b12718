"""The study of the gate's power: logits are saved as they are, and its figures make sense."""

from pathlib import Path

import gate_power
import numpy as np
import pytest


def test_figures_from_graphs_with_known_noise(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (400, 5)).astype(np.float32)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([random.choice(5, p=p) for p in chances])
    noisy = logits + random.normal(0, 0.2, logits.shape).astype(np.float32)
    file = tmp_path / "made_up.npz"
    np.savez(file, truth=truth, fp32=logits, int8=noisy)
    rows = gate_power.study(file, draws=10)
    assert [(row["graph"], row["images"]) for row in rows] == [
        ("int8", 50), ("int8", 100), ("int8", 200),
    ]  # fmt: skip
    assert all(float(row["coverage_logits"]) >= 80 for row in rows)
    assert float(rows[1]["variance_ratio"]) > 2


def test_images_needed_grow_with_the_square_of_the_error() -> None:
    row: dict[str, float | str] = {
        "images": 100, "error_count": 0.5, "error_logits": 0.25, "floor_logits": 0.0,
    }  # fmt: skip
    counted = gate_power.images_needed(row, "count", 0.0)
    assert counted == pytest.approx(100 * (1.96 * 0.5) ** 2, 1e-3)
    assert gate_power.images_needed(row, "count", 2.0) == counted
    assert gate_power.images_needed(row, "logits", 0.0) == pytest.approx(counted / 4)
    # a part that does not narrow takes more, and where it is too wide the count decides
    row["floor_logits"] = 0.3
    expected = 100 * ((1.96 * 0.25) ** 2 - 0.3**2) / (1 - 0.3**2)
    assert gate_power.images_needed(row, "logits", 0.0) == pytest.approx(expected, 1e-3)
    row["floor_logits"] = 1.0
    assert gate_power.images_needed(row, "logits", 0.0) == counted
