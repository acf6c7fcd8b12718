"""This machine by the facts that decide which backend is the fastest right one on it."""

from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.inference.host import this_host
from resdeploy.deploy.machine import cores, cpu_name
from resdeploy.deploy.specs import BACKENDS
from tests.fakes import FakeSession, channel_means


def test_the_facts_change_with_what_decides_the_outcome() -> None:
    host = this_host()
    assert {cpu_name(), f"{cores()} threads of {cores()}"} <= set(host.facts)
    assert any(fact.startswith("onnxruntime ") for fact in host.facts)
    assert host.facts == this_host().facts == this_host(cores()).facts
    assert this_host(cores() + 1).facts != host.facts
    assert host.backends == (("ort-cpu",) if cuda_problem() else BACKENDS)


def test_sessions_open_with_its_threads(tiny_bundle: Path) -> None:
    with this_host(1).open(open_model(tiny_bundle), "fp32", "ort-cpu") as session:
        assert (session.backend, session.variant, session.threads) == ("ort-cpu", "fp32", 1)


@pytest.mark.slow
def test_one_image_is_timed_in_each_session() -> None:
    seen: list[float] = []

    def answer(batch: np.ndarray) -> np.ndarray:
        seen.append(float(batch.mean()))
        return channel_means(batch)

    sessions = [FakeSession(answer), FakeSession(answer)]
    reference = Reference(np.ones((4, 3, 8, 8), np.float32), np.ones((4, 3), np.float32))
    times = this_host().measure(sessions, reference)
    assert len(times) == 2 and min(times) > 0
    assert set(sessions[0].batches) == set(sessions[1].batches) == {1} and set(seen) == {1.0}
    this_host().measure(sessions[:1], None)
    assert set(seen) == {0.0, 1.0}  # without a reference, an image of zeros
