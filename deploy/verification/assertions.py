"""`assert_accuracy`: the gates of `resdeploy verify` in a test of your own."""

from collections.abc import Sequence
from typing import Literal

from resdeploy.deploy.reading import StrPath
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.verification.reports.report import VerifyReport, figures
from resdeploy.deploy.verification.verify import verify


def assert_accuracy(
    bundle: StrPath,
    *,
    data: StrPath | None = None,
    precisions: Sequence[Precision] = (),
    backends: Sequence[Backend | Literal["auto"]] = ("auto",),
    max_drop: float | None = None,
    min_top1: float | None = None,
    min_agreement: float | None = None,
    max_class_drop: float | None = None,
    baseline: StrPath | None = None,
    strict: bool = False,
) -> VerifyReport:
    """Raise AssertionError if a gate fails, else return the report; arguments as for `verify`.

        def test_the_deployment_still_answers_like_pytorch():
            assert_accuracy("flowers.bundle", data="photos/val", max_drop=1)

    Raises:
        AssertionError: one line for each failed gate, then the figures of every variant.
        ResdeployError: as `verify`.
    """
    report = verify(
        bundle,
        data=data,
        precisions=precisions,
        backends=backends,
        max_drop=max_drop,
        min_top1=min_top1,
        min_agreement=min_agreement,
        max_class_drop=max_class_drop,
        baseline=baseline,
        strict=strict,
    )
    if report.verdict == "fail":
        raise AssertionError(_failures(report))
    return report


def _failures(report: VerifyReport) -> str:
    failed = [f"{gate.variant}: {gate.sentence}" for gate in report.gates if gate.verdict == "fail"]
    lines = [*failed, *map(figures, report.variants)]
    return f"{report.subject} compared with {report.reference}:\n  " + "\n  ".join(lines)
