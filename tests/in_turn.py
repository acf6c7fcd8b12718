"""A `Spread` without a cluster: every share goes through pickle, as it would to another machine."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from resdeploy.deploy.images.spread import Open, Result, State, Work


@dataclass(frozen=True)
class InTurn:
    """Works on one share after the other; opens everything anew for each.

    `work` need not be picklable here, for pickle knows no closures; the results are.
    """

    bundle: Path
    files: Sequence[Path]

    def __call__(
        self, opened: Open[State], work: Work[State, Result], shares: Sequence[range]
    ) -> Iterator[Result]:
        for number, share in enumerate(shares):
            with opened(self.bundle) as state:
                result = work(state, number, self.files[share.start : share.stop])
            yield cast(Result, pickle.loads(pickle.dumps(result)))
