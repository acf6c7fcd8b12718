"""All checks of one variant against one reference: the bundle's own, a baseline or a release."""

from collections.abc import Sequence
from dataclasses import replace

from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.checks.calibration import calibration_gate
from resdeploy.deploy.verification.checks.drop import class_drop_gate, drop_gate
from resdeploy.deploy.verification.checks.gate import Gate
from resdeploy.deploy.verification.checks.limits import Limits
from resdeploy.deploy.verification.checks.shares import agreement_gate


def comparison_gates(
    variant: str, accuracy: Accuracy, limits: Limits, labels: Sequence[str], *, against: str
) -> list[Gate]:
    """The checks against the bundle's own reference; `against` is its name in sentences."""
    found: list[Gate | None] = []
    if accuracy.counts is not None:
        found += [
            drop_gate(variant, accuracy, limits.max_drop, against=against),
            class_drop_gate(variant, accuracy, labels, limits.max_class_drop, against=against),
            calibration_gate(variant, accuracy, against=against),
        ]
    if accuracy.agreement is not None and limits.min_agreement is not None:
        found.append(agreement_gate(variant, accuracy, limits.min_agreement, against=against))
    return [gate for gate in found if gate is not None]


def earlier_gates(
    variant: str,
    accuracy: Accuracy,
    limits: Limits,
    labels: Sequence[str],
    *,
    against: str,
    kind: str,
) -> list[Gate]:
    """The checks against earlier answers; `kind` ("baseline", "against") begins their names."""
    own = limits if accuracy.counts is None else replace(limits, min_agreement=None)
    main = ("max-drop", "min-agreement")
    return [
        replace(
            gate,
            name=kind if gate.name in main else f"{kind}-{gate.name}",
            sentence=f"against {against}: {gate.sentence}",
        )
        for gate in comparison_gates(variant, accuracy, own, labels, against=against)
    ]
