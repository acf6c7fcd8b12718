"""How much an INT8 variant may lose: what repairs aim for, and below what it is refused.

All limits are on images held back from calibration, against float32. The signal-to-noise ratio
(SQNR) of the logits decides first: it is measured on every logit and hardly varies with the choice
of images, while agreement counts rare events.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from resdeploy.deploy.metrics.intervals import wilson_interval

# Repairs that cost nothing at inference go on until here: an error of 4 % of the logits. Plain INT8
# of MobileNetV2 has 17 to 21 dB and of residual networks 25 to 35.
_AIM_FREE_DB = 28.0
# The sequential fit goes on until here: it costs seconds of quantizing and nothing at inference
# (128 calibration images: MobileNetV2 26.9 → 28.8 dB on 184 others, ResNeXt-50 35.3 → 35.9 on 367).
_AIM_FIT_DB = 40.0
# Repairs that cost speed (float layers) or another pass go on until here: an error of 7 %.
_AIM_DB = 23.0
_AIM_AGREEMENT = 98.0
# Layers left float for the sake of decibels.
_MOST_FLOAT = 3
# What a repair costs: nothing, a fit to images, or speed or another pass over the images.
Cost = Literal["free", "fit", "costly"]
# Below this a variant is refused: one answer in twenty would change.
_LEAST_DB, _LEAST_AGREEMENT = 15.0, 95.0


@dataclass(frozen=True)
class Score:
    """A variant on `images` images: agreement in percent (None for a backbone), SQNR in dB."""

    images: int
    agreement: float | None
    sqnr_db: float


@dataclass(frozen=True)
class Budget:
    """Aims of the repair ladder, layers it may leave float for them, and limits of refusal; SQNR
    in dB, agreement in percent.
    """

    aim_sqnr_db: float = _AIM_DB
    aim_sqnr_free_db: float = _AIM_FREE_DB
    aim_sqnr_fit_db: float = _AIM_FIT_DB
    aim_agreement: float = _AIM_AGREEMENT
    most_float: int = _MOST_FLOAT
    least_sqnr_db: float = _LEAST_DB
    least_agreement: float = _LEAST_AGREEMENT

    def by_labels(self) -> "Budget":
        """The budget where labelled images decide: nothing is spent for decibels alone."""
        return replace(self, aim_sqnr_db=self.least_sqnr_db, aim_agreement=self.least_agreement)

    def as_trained(self) -> "Budget":
        """The budget of a network trained for its grids: repairs only where it would be refused.

        Repairs bring a graph closer to the float weights, which are not what was trained.
        """
        return replace(
            self.by_labels(),
            aim_sqnr_free_db=self.least_sqnr_db,
            aim_sqnr_fit_db=self.least_sqnr_db,
        )

    def without_images(self) -> "Budget":
        """The budget where no image of the right kind judges: only what is free is tried."""
        return replace(
            self,
            aim_sqnr_db=-np.inf,
            aim_sqnr_fit_db=-np.inf,
            aim_agreement=0.0,
            most_float=0,
        )

    def met(self, score: Score, cost: Cost) -> bool:
        """Whether the score is good enough to leave out a repair of this cost."""
        aims = {"free": self.aim_sqnr_free_db, "fit": self.aim_sqnr_fit_db}
        return _short(score, aims.get(cost, self.aim_sqnr_db), self.aim_agreement) is None

    def refuses(self, score: Score) -> str | None:
        """Why a variant with this score may not ship, None when it may."""
        return _short(score, self.least_sqnr_db, self.least_agreement)


def _short(score: Score, sqnr_db: float, agreement: float) -> str | None:
    """What falls short. Agreement does only where chance cannot explain it (Wilson's interval):
    one changed answer among 32 images proves nothing.
    """
    if not score.sqnr_db >= sqnr_db:
        return f"SQNR is {score.sqnr_db:.1f} dB, less than {sqnr_db:g} dB"
    if score.agreement is None:
        return None
    agreeing = round(score.agreement * score.images / 100)
    if wilson_interval(agreeing, score.images).high < agreement:
        return f"agreement is {score.agreement:.1f} %, less than {agreement:g} %"
    return None
