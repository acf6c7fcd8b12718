"""The study of false alarms: sound variants raise hardly any, and a worse one does."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import gate_false_alarms
import numpy as np
import pytest

WriteBundle = Callable[..., Path]


@pytest.fixture
def population(
    tmp_path: Path, write_flower_bundle: Callable[[Path, int], Path]
) -> gate_false_alarms.Population:
    """Logits of two variants, one with small noise; the network itself is beside the point."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (400, 5)).astype(np.float32)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([random.choice(5, p=p) for p in chances])
    noisy = logits + random.normal(0, 0.05, logits.shape).astype(np.float32)
    file = tmp_path / "made_up.npz"
    np.savez(file, truth=truth, fp32=logits)
    bundle = write_flower_bundle(tmp_path / "flowers.bundle", 5)
    with ExitStack() as stack:
        whole = gate_false_alarms.read_population(file, bundle, stack)
    (reference,) = whole.candidates
    int8 = replace(reference, name="int8", precision="int8", variant="int8")
    return replace(whole, candidates=(reference, int8), logits={**whole.logits, "int8": noisy})


def test_a_sound_variant_raises_no_alarm_and_a_spoilt_one_does(
    population: gate_false_alarms.Population,
) -> None:
    sound = gate_false_alarms.count_alarms(population, 100, 5, boundary=False)
    assert (sound.runs, sound.any_failed, sound.failed["max-drop"]) == (5, 0, 0)
    assert sound.judged["max-drop"] == 5
    spoilt = np.roll(population.logits["int8"], 1, axis=1)
    worse = replace(population, logits={**population.logits, "int8": spoilt})
    found = gate_false_alarms.count_alarms(worse, 100, 5, boundary=False)
    assert (found.any_failed, found.failed["max-drop"]) == (5, 5)


@pytest.mark.slow
def test_at_the_boundary_chance_alone_rarely_fails_a_run(
    population: gate_false_alarms.Population,
) -> None:
    found = gate_false_alarms.count_alarms(population, 200, 20, boundary=True)
    assert found.checks == 4 and set(found.judged) == {
        "max-drop", "max-class-drop", "calibration", "as-promised",
    }  # fmt: skip
    assert found.any_failed <= 2
