"""`assert_accuracy`: the gate of `resdeploy verify` inside anybody's own tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.verification import verify
from resdeploy.deploy.verify_report import VerifyReport, figures


def assert_accuracy(
    bundle: str | Path,
    *,
    data: str | Path | None = None,
    precisions: Sequence[Precision] = (),
    backends: Sequence[Backend | Literal["auto"]] = ("auto",),
    max_drop: float | None = None,
    min_top1: float | None = None,
    min_agreement: float | None = None,
    baseline: str | Path | None = None,
    strict: bool = False,
) -> VerifyReport:
    """Raise AssertionError where a limit is broken; else return the report.

    The arguments are those of `verify`. With `strict`, too few pictures to decide is a failure.

        def test_the_deployment_still_answers_like_pytorch():
            assert_accuracy("flowers.bundle", data="photos/val", max_drop=1)

    Raises:
        AssertionError: every broken limit in one line each, then the figures of every variant.
        ResdeployError: as `verify`; a missing bundle is not an accuracy.
    """
    report = verify(
        bundle,
        data=data,
        precisions=precisions,
        backends=backends,
        max_drop=max_drop,
        min_top1=min_top1,
        min_agreement=min_agreement,
        baseline=baseline,
        strict=strict,
    )
    if report.verdict != "fail":
        return report
    broken = [
        f"{gate.variant}: {gate.sentence}"
        for gate in report.gates
        if gate.verdict == "fail" or (strict and gate.verdict == "inconclusive")
    ]
    lines = [*broken, *map(figures, report.variants)]
    raise AssertionError(f"{bundle} compared with {report.reference}:\n  " + "\n  ".join(lines))
