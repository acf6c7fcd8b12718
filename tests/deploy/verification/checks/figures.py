"""Figures of 367 images as a variant may have them, to be changed by tests."""

from resdeploy.deploy.metrics.intervals import Interval, Paired
from resdeploy.deploy.verification.accuracy import Accuracy, Numbers, Truthful

ACCURACY = Accuracy(
    images=367,
    not_finite=(),
    truthful=Truthful(85.0, Interval(81.0, 88.4), 99.0, 4.0),
    reference=Truthful(85.6, Interval(81.6, 88.9), 99.0, 4.0),
    counts=Paired(367, lost=3, gained=1),
    drop_ci95=Interval(-0.5, 1.6),
    agreement=98.0,
    agreement_ci95=Interval(96.0, 99.1),
    numbers=Numbers(
        max_abs=0.25, sqnr_db=21.3, sqnr_ci95=Interval(20.6, 22.0), cosine=0.99, kl=0.01
    ),
)
