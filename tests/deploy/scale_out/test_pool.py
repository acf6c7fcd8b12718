"""Shares go to two actors and come back in order, also when one of them is killed."""

import os
import signal
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from resdeploy.deploy.errors import BundleError, GraphError
from resdeploy.deploy.inference.classifier import Classifier, load
from resdeploy.deploy.scale_out.pool import RayPool

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@dataclass(frozen=True)
class _Killed:
    """Names the process and the sizes of a share's files; kills its process once."""

    flag: Path

    def __call__(self, bundle: Path, number: int, files: Sequence[Path]) -> tuple[int, list[int]]:
        if number == 7 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid(), [file.stat().st_size for file in files]


def _pool(bundle: Path, folder: Path) -> RayPool:
    return RayPool(bundle, sorted(map(str, folder.glob("*.jpg"))), workers=2)


def test_a_killed_actor_costs_nothing_but_time(
    tmp_path: Path, tiny_bundle: Path, image_folder: Path
) -> None:
    pool, flag = _pool(tiny_bundle, image_folder), tmp_path / "killed"
    shares = [range(start, start + 2) for start in range(0, 24, 2)]
    found = list(pool(nullcontext, _Killed(flag), shares))
    assert flag.exists()
    sizes = [os.stat(place).st_size for place in pool.places]
    assert [size for _, part in found for size in part] == sizes
    assert len({process for process, _ in found}) >= 2


def test_every_actor_has_a_session_of_its_own(tiny_bundle: Path, image_folder: Path) -> None:
    def ask(classifier: Classifier, number: int, files: Sequence[Path]) -> tuple[int, int]:
        return os.getpid(), id(classifier)

    shares = [range(n, n + 1) for n in range(24)]
    found = set(_pool(tiny_bundle, image_folder)(partial(load, threads=1), ask, shares))
    assert len(found) == len({process for process, _ in found}) <= 2


def test_what_a_worker_raises_is_what_it_raised(tiny_bundle: Path, image_folder: Path) -> None:
    def fail(bundle: Path, number: int, files: Sequence[Path]) -> None:
        raise GraphError("logits are not finite")

    pool = _pool(tiny_bundle, image_folder)
    with pytest.raises(GraphError, match=r"^logits are not finite$"):
        list(pool(nullcontext, fail, [range(2)]))
    with pytest.raises(BundleError, match="no such bundle"):
        list(RayPool(tiny_bundle.with_name("no"), pool.places)(nullcontext, fail, [range(2)]))
