"""How much an INT8 variant may lose: what repairs aim for, and below what it is refused.

All limits are on pictures held back from calibration, against float32. The signal-to-noise ratio
(SQNR) of the logits decides first: it is measured on every logit and hardly varies with the choice
of pictures, while agreement counts rare events.
"""

from dataclasses import dataclass, replace

from resdeploy.deploy.statistics import wilson_interval

# Repairs that cost nothing at inference go on until here: an error of 4 % of the logits. Plain INT8
# of MobileNetV2 has 17 to 21 dB and of residual networks 25 to 35.
_AIM_FREE_DB = 28.0
# Repairs that cost speed (float layers) or another pass go on until here: an error of 7 %.
_AIM_DB = 23.0
_AIM_AGREEMENT = 98.0
# Layers left float for the sake of decibels.
_MOST_FLOAT = 3
# Below this a variant is refused: one answer in twenty would change.
_LEAST_DB, _LEAST_AGREEMENT = 15.0, 95.0


@dataclass(frozen=True)
class Score:
    """A variant on `images` pictures: agreement in percent, SQNR in dB."""

    images: int
    agreement: float
    sqnr_db: float


@dataclass(frozen=True)
class Budget:
    """Aims of the repair ladder, layers it may leave float for them, and limits of refusal; SQNR
    in dB, agreement in percent."""

    aim_sqnr_db: float = _AIM_DB
    aim_sqnr_free_db: float = _AIM_FREE_DB
    aim_agreement: float = _AIM_AGREEMENT
    most_float: int = _MOST_FLOAT
    least_sqnr_db: float = _LEAST_DB
    least_agreement: float = _LEAST_AGREEMENT

    def by_labels(self) -> "Budget":
        """The budget where labelled pictures decide: nothing is spent for decibels alone."""
        return replace(self, aim_sqnr_db=self.least_sqnr_db, aim_agreement=self.least_agreement)

    def met(self, score: Score, *, free: bool) -> bool:
        """Whether repairing may stop; `free`: before a repair that costs no speed."""
        aim = self.aim_sqnr_free_db if free else self.aim_sqnr_db
        return _short(score, aim, self.aim_agreement) is None

    def refuses(self, score: Score) -> str | None:
        """Why a variant with this score may not ship, None when it may."""
        return _short(score, self.least_sqnr_db, self.least_agreement)


def _short(score: Score, sqnr_db: float, agreement: float) -> str | None:
    """What falls short. Agreement does only where chance cannot explain it (Wilson's interval):
    one changed answer among 32 pictures proves nothing."""
    if not score.sqnr_db >= sqnr_db:
        return f"SQNR is {score.sqnr_db:.1f} dB, less than {sqnr_db:g} dB"
    agreeing = round(score.agreement * score.images / 100)
    if wilson_interval(agreeing, score.images).high < agreement:
        return f"agreement is {score.agreement:.1f} %, less than {agreement:g} %"
    return None
