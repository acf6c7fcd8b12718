"""Checks of the logits: finite, and as near to the reference's as the precision allows."""

from resdeploy.deploy.metrics.logits import MIN_SQNR_DB
from resdeploy.deploy.specs import Precision
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.checks.gate import Gate, Outcome, span

LEAST_AGREEMENT = 50.0


def finite_gate(variant: str, accuracy: Accuracy, images: tuple[str, ...]) -> Gate | None:
    """Fail where a logit is NaN or infinite; `images` says what to call each image."""
    if not accuracy.not_finite:
        return None
    count, first = len(accuracy.not_finite), images[accuracy.not_finite[0]]
    what = f"NaN or infinite logits for {count} of {accuracy.images} images"
    return Gate(
        name="finite",
        variant=variant,
        verdict="fail",
        sentence=f"{what}, the first is {first}",
        value=float(count),
        limit=0.0,
        brief=f"{variant} has {what}",
    )


def logits_gate(
    variant: str, precision: Precision, accuracy: Accuracy, *, whose: str, inputs: str
) -> Gate | None:
    """Logits of a float variant: a working kernel keeps at least so much signal to noise.

    `whose` logits they are compared with, on which `inputs`. None for INT8, where no floor fits all
    networks (`promise` knows what this one had), and where nothing finite was compared.
    """
    if accuracy.numbers is None or precision == "int8":
        return None
    value, limit = accuracy.numbers.sqnr_db, MIN_SQNR_DB[precision]
    verdict: Outcome = "pass" if value >= limit else "fail"
    sentence = (
        f"logits are {value:.1f} dB from {whose} on {accuracy.images} {inputs} "
        f"(max |Δ| {accuracy.numbers.max_abs:.2g}), minimum for {precision}: {limit:g} dB"
    )
    if verdict == "fail" and precision == "fp32":
        sentence += (
            "; the graph is broken, its kernels are, or the recorded logits are another network's"
        )
    return Gate(
        name="logits",
        variant=variant,
        verdict=verdict,
        sentence=sentence,
        value=value,
        interval=accuracy.numbers.sqnr_ci95,
        limit=limit,
        brief=f"{variant}'s logits are {value:.1f} dB from {whose} (minimum {limit:g})",
    )


def answers_gate(variant: str, accuracy: Accuracy, original: str) -> Gate | None:
    """INT8 of which nothing is promised, on the recorded inputs: half of the answers at least.

    Working graphs keep 75 to 100 % of them, damaged ones 12 to 25.
    """
    value, interval = accuracy.agreement, accuracy.agreement_ci95
    if value is None or interval is None:
        return None
    where = f"on {accuracy.images} recorded inputs"
    return Gate(
        name="logits",
        variant=variant,
        verdict="fail" if interval.high < LEAST_AGREEMENT else "pass",
        sentence=(
            f"agreement with {original} is {value:.1f} % {span(interval)} {where}, minimum for a "
            f"working graph: {LEAST_AGREEMENT:g} %"
        ),
        value=value,
        interval=interval,
        limit=LEAST_AGREEMENT,
        brief=f"{variant} agrees with {original} on {value:.1f} % {where}",
        guard=True,
    )


def nothing_gate(variant: str) -> Gate:
    """Where there is neither a reference nor a limit on accuracy to judge by."""
    sentence = "nothing to judge by: give --checkpoint, or --data with classes and --min-top1"
    brief = f"nothing to judge {variant} by"
    return Gate("reference", variant, "inconclusive", sentence, brief=brief)
