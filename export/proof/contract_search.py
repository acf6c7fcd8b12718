"""Finds the contract that a checkpoint's batch norms speak for, on images without labels.

From the assumed contract, every alternative that changes one thing is run on real images and
compared with it, image by image (`discrepancy`). Where one is clearly nearer, it becomes the
contract and the comparison starts again; where none is, everything clearly farther is out. A few
images settle most alternatives, those that remain open get more.

Alternatives run beside each other, each on one thread. Were each operation spread over the cores
instead, every one of the many small ones would end with the cores waiting for each other, which on
a machine with other work to do takes ten times as long.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from resdeploy.deploy.arrays import Float32s, Float64s
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import evenly_spaced
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.machine import cores
from resdeploy.deploy.progress import Progress, silent
from resdeploy.export.architectures.family import Assumption
from resdeploy.export.proof.batchnorm_statistics import observe, trained_batchnorms
from resdeploy.export.proof.contracts import Alternative, Contract, alternatives
from resdeploy.export.proof.discrepancy import compare, products, score
from resdeploy.export.proof.pixels import Pixels, decode, geometry, inputs
from resdeploy.export.proof.testimony import FAR, Rival, Testimony

Build = Callable[[Mapping[str, str]], nn.Module]

FEWEST_IMAGES = 8
# Few images settle what is far apart; what stays open and is large enough to tell gets more.
_STAGES = (8, 24, 64)
_ROUNDS = 6


def testify(
    build: Build,
    assumed: Contract,
    assumptions: Sequence[Assumption],
    paths: Sequence[Path],
    *,
    given: frozenset[str] = frozenset(),
    progress: Progress = silent,
) -> Testimony | None:
    """Compare the assumed contract and its alternatives on real images; see the module's docstring.

    `build` makes a new network with the checkpoint's weights from settings. At most 64 of `paths`
    are used, evenly spaced. Keys that the user has `given` are compared and never changed. None
    where there are fewer than 8 images, or the batch norms hold no statistics of a training.

    Raises:
        InputError: too many images cannot be read.
    """
    if len(paths) < FEWEST_IMAGES or not trained_batchnorms(build(assumed.settings)):
        return None
    chosen = [paths[at] for at in evenly_spaced(len(paths), _STAGES[-1])]
    # neighbours in a sorted folder are of one class: any few of them should be of many
    order = np.random.default_rng(0).permutation(len(chosen))
    with _workers() as workers:
        witness = _Witness(build, tuple(chosen[at] for at in order), workers)
        contract, rivals = assumed, _examine(witness, assumed, assumptions, given, progress)
        for _ in range(_ROUNDS):
            better = [rival for rival in rivals if rival.verdict == "nearer"]
            # where the user's own answer is what fits least, another change would make up for it
            if not better or not _to_move(better[0], given):
                break
            contract = better[0].alternative.contract
            rivals = _examine(witness, contract, assumptions, given, progress)
        return _testimony(witness, assumed, contract, rivals)


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """As many workers as cores; inside, PyTorch keeps each operation on the worker's own thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores()) as workers:
            yield workers
    finally:
        torch.set_num_threads(before)


def _testimony(
    witness: "_Witness", assumed: Contract, contract: Contract, rivals: tuple[Rival, ...]
) -> Testimony:
    vectors = witness.vectors(contract, _STAGES[1])
    keys = dict.fromkeys(rival.alternative.key for rival in rivals)
    values = {key: contract.value(key) for key in keys}
    return Testimony(
        images=len(vectors[0]),
        layers=len(vectors),
        contract=contract,
        score=score(products(vectors, vectors)),
        rivals=rivals,
        changed={key: value for key, value in values.items() if value != assumed.value(key)},
    )


def _examine(
    witness: "_Witness",
    contract: Contract,
    assumptions: Sequence[Assumption],
    given: frozenset[str],
    progress: Progress,
) -> tuple[Rival, ...]:
    """Every alternative, the nearest first: on a few images, then what is open on more.

    Where a few images already speak for another contract, the rest is not looked at.
    """
    rest = alternatives(contract, assumptions)
    total = len(rest)
    settled: list[Rival] = []
    for stage, count in enumerate(_STAGES):
        witness.prepare([contract, *(other.contract for other in rest)])
        own = witness.vectors(contract, count)
        own_products = products(own, own)
        found = []
        seen = witness.all_vectors([other.contract for other in rest], count)
        for at, (other, vectors) in enumerate(zip(rest, seen, strict=True)):
            progress("comparing batch-norm statistics", total - len(rest) + at, total)
            if vectors is not None:
                found.append(_rival(other, vectors, own, own_products))
        done = (
            stage == len(_STAGES) - 1
            or witness.images <= count
            or any(_to_move(rival, given) for rival in found)
            or score(own_products).low > FAR  # no number of images makes sense of it
        )
        settled += [rival for rival in found if done or not rival.worth_more_images]
        rest = () if done else tuple(r.alternative for r in found if r.worth_more_images)
        if not rest:
            break
    return tuple(sorted(settled, key=lambda rival: rival.margin))


def _to_move(rival: Rival, given: frozenset[str]) -> bool:
    return rival.verdict == "nearer" and rival.alternative.key not in given


def _rival(
    alternative: Alternative,
    vectors: Sequence[Float32s],
    own: Sequence[Float32s],
    own_products: Float64s,
) -> Rival:
    other = products(vectors, vectors)
    comparison = compare(own_products, other, products(own, vectors))
    found = score(other)
    margin = found.value - score(own_products).value
    return Rival(alternative, found, margin, comparison, len(own[0]))


class _Witness:
    """The images, decoded once for each geometry, and the network that looks at them."""

    def __init__(self, build: Build, paths: tuple[Path, ...], workers: ThreadPoolExecutor) -> None:
        self._build = build
        self._workers = workers
        self._paths = paths
        self._pixels: dict[Preprocess, Pixels] = {}

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self._paths)

    def prepare(self, contracts: Sequence[Contract]) -> None:
        """Decode for all of `contracts` at once; only this reads files."""
        wanted = dict.fromkeys(geometry(contract.preprocess) for contract in contracts)
        missing = [way for way in wanted if way not in self._pixels]
        if missing:
            self._pixels.update(decode(self._paths, missing))

    def vectors(self, contract: Contract, count: int) -> list[Float32s]:
        """The vectors of every batch norm for the first `count` images."""
        return self._observed(self._build(contract.settings), contract, count)

    def all_vectors(
        self, contracts: Sequence[Contract], count: int
    ) -> Iterator[list[Float32s] | None]:
        """The same for each contract; None where such a network cannot run.

        A stage that cannot stride, or an input too small for the layers, is no contract at all.
        """
        running: list[Future[list[Float32s]] | None] = []
        for contract in contracts:
            try:
                module = self._build(contract.settings)
            except (InputError, RuntimeError):
                running.append(None)
            else:
                running.append(self._workers.submit(self._observed, module, contract, count))
        for future in running:
            try:
                yield None if future is None else future.result()
            except (InputError, RuntimeError):
                yield None

    def _observed(self, module: nn.Module, contract: Contract, count: int) -> list[Float32s]:
        pixels = self._pixels[geometry(contract.preprocess)][:count]
        layers = observe(module, inputs(pixels, contract.preprocess))
        return [layer.vectors() for layer in layers]
