"""Compares the logits of two sessions for the same images, image by image or as a whole.

With z (N, K) the reference's logits, y (N, K) the deployment's, p = softmax(z), q = softmax(y):

    agreement   100/N Σ_n [argmax y_n = argmax z_n]                        percent
    max_abs     max |y - z|
    SQNR        10 log10(Σ z² / Σ (y - z)²)                                dB, over all logits
    cosine      <y_n, z_n> / (‖y_n‖ ‖z_n‖)                                 per image
    KL          Σ_k p_nk (log p_nk - log q_nk)                             nats, per image
    ECE         Σ_b |B_b|/N |accuracy(B_b) - confidence(B_b)|              percent, B_b the images
                whose confidence max_k q_nk lies in ((b-1)/15, b/15]       (Guo et al. 2017)

Ties of the largest logit go to the smaller class index, as numpy.argmax does, everywhere.
Sums are float64. What is kept per image is a few numbers, so memory does not grow with K.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resdeploy.deploy.arrays import Bools, Float32s, Float64s, Floats, Indices
from resdeploy.deploy.specs import Precision

# Identical logits would have infinite SQNR, which JSON has not. Float32 ends near 144 dB.
IDENTICAL_DB = 200.0

_ECE_BINS = 15
_TOP = 5


@dataclass(frozen=True)
class Answers:
    """What a session answered, one entry per image.

    Attributes:
        index: the class with the largest logit.
        confidence: its softmax probability; NaN where a logit is not finite.
        top5: the true class is among the five largest logits; all False when it is not known.
        margin: the largest logit minus the second largest.
        finite: no logit is NaN or infinite.
    """

    index: Indices
    confidence: Float64s
    top5: Bools
    margin: Float64s
    finite: Bools


@dataclass(frozen=True)
class Differences:
    """How far a session's logits are from the reference's, one entry per image.

    Attributes:
        max_abs: largest difference of a logit.
        noise: Σ_k (y - z)²; signal: Σ_k z².
        cosine, kl: see the module's docstring.
    """

    max_abs: Float64s
    noise: Float64s
    signal: Float64s
    cosine: Float64s
    kl: Float64s


def answers(logits: Float32s, truth: Indices | None = None) -> Answers:
    """The answers in (N, K) logits; `truth` (N,) holds the true classes where they are known."""
    finite = np.asarray(np.isfinite(logits).all(axis=1))
    index = logits.argmax(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        confidence = np.exp(_log_softmax(logits).max(axis=1))
    top5 = np.zeros(len(logits), np.bool_)
    if truth is not None:
        true_logit = logits[np.arange(len(logits)), truth][:, None]
        earlier = np.arange(logits.shape[1]) < truth[:, None]
        above = (logits > true_logit) | ((logits == true_logit) & earlier)
        top5 = finite & (above.sum(axis=1) < _TOP)
    return Answers(index, np.where(finite, confidence, np.nan), top5, margins(logits), finite)


def differences(reference: Float32s, got: Float32s) -> Differences:
    """The distance of (N, K) logits from the reference's, per image."""
    z, y = reference.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        error = y - z
        noise, signal = (error**2).sum(axis=1), (z**2).sum(axis=1)
        norms = np.sqrt(signal * (y**2).sum(axis=1))
        cosine = np.where(norms > 0, (y * z).sum(axis=1) / norms, 1.0)
        log_p, log_q = _log_softmax(z), _log_softmax(y)
        kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
        return Differences(np.abs(error).max(axis=1), noise, signal, cosine, np.maximum(kl, 0))


def margins(logits: Float32s) -> Float64s:
    """(N,) largest minus second largest logit; infinite for a network of one class."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf)
    top = np.partition(logits.astype(np.float64), -2, axis=1)[:, -2:]
    with np.errstate(invalid="ignore"):
        return np.asarray(top[:, 1] - top[:, 0])


def join_answers(parts: Sequence[Answers]) -> Answers:
    """The answers of consecutive batches as one."""
    return Answers(*(np.concatenate(column) for column in zip(*map(_columns, parts), strict=True)))


def join_differences(parts: Sequence[Differences]) -> Differences:
    """The differences of consecutive batches as one."""
    return Differences(
        *(np.concatenate(column) for column in zip(*map(_columns, parts), strict=True))
    )


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise), at most `IDENTICAL_DB`; at 0 dB the noise is as strong."""
    if math.isnan(signal) or math.isnan(noise):
        return -IDENTICAL_DB  # min and max would make the best of it
    if noise == 0:
        return IDENTICAL_DB
    if signal == 0:
        return -IDENTICAL_DB
    return max(-IDENTICAL_DB, min(IDENTICAL_DB, 10 * math.log10(signal / noise)))


def sqnr_db(reference: Float32s, got: Float32s) -> float:
    """SQNR of whole (N, K) logits in dB, at most `IDENTICAL_DB`."""
    found = differences(reference, got)
    return decibels(float(found.signal.sum()), float(found.noise.sum()))


def agreement(reference: Float32s, got: Float32s) -> float:
    """Percent of images with the same top-1 class."""
    return 100 * float((reference.argmax(axis=1) == got.argmax(axis=1)).mean())


def top1(logits: Float32s, truth: Indices) -> float:
    """Percent of images whose largest logit is the true class."""
    return 100 * float((logits.argmax(axis=1) == truth).mean())


def max_abs(reference: Float32s, got: Float32s) -> float:
    """Largest difference of a logit."""
    return float(np.abs(got.astype(np.float64) - reference).max())


def calibration_error(confidence: Float64s, right: Bools) -> float:
    """Expected calibration error in percent, 15 equal bins (Guo et al. 2017, eq. 3)."""
    gaps = calibration_bins(confidence, right).sum(axis=0)
    return 100 * float(np.abs(gaps).sum() / len(confidence))


def calibration_bins(confidence: Float64s, right: Bools) -> Float64s:
    """(N, 15): right minus confidence of every image, in the column of its confidence's bin."""
    bins = np.clip(np.ceil(confidence * _ECE_BINS).astype(int) - 1, 0, _ECE_BINS - 1)
    columns = np.zeros((len(confidence), _ECE_BINS))
    columns[np.arange(len(confidence)), bins] = right - confidence
    return columns


def _log_softmax(logits: Floats) -> Float64s:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _columns(part: Answers | Differences) -> list[NDArray[np.generic]]:
    return list(vars(part).values())


# What a working kernel gives at least. Float32 through TF32 tensor cores keeps about 55 dB, FP16 40
# to 60. INT8 differs from network to network: `verify` holds it to what quantize measured, and 5 dB
# only tells a backend that works from one that does not.
MIN_SQNR_DB: dict[Precision, float] = {"fp32": 45.0, "fp16": 25.0, "int8": 5.0}
