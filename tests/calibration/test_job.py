"""A report's exit code and JSON, and what a run's options come to."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from resdeploy.calibration.job import Job, QuantizeReport
from resdeploy.calibration.observe.images import CalibrationImages
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.errors import EXIT_GATE_FAILED
from resdeploy.deploy.images.dataset import Images


def test_a_refused_variant_fails_unless_it_was_forced(flower_bundle: Path) -> None:
    manifest = read_bundle(flower_bundle).manifest
    report = QuantizeReport(flower_bundle, manifest, {}, refused={"int8": "SQNR is 9 dB"})
    assert report.exit_code == EXIT_GATE_FAILED
    assert replace(report, forced=True).exit_code == 0
    assert replace(report, refused={}).exit_code == 0
    document = report.to_json()
    assert document["refused"] == {"int8": "SQNR is 9 dB"}
    assert set(document["variants"]) == set(manifest.variants)


def test_few_images_are_all_calibrated_with_in_the_end(job: Job) -> None:
    def split(calibrate: int, held: int) -> Job:
        paths = tuple(Path(f"{n}.jpg") for n in range(calibrate + held))
        parts = paths[:calibrate], paths[calibrate:]
        ours, theirs = (CalibrationImages(part, ("",) * len(part), ()) for part in parts)
        return replace(job, calibrate=ours, held=theirs)

    assert split(16, 16).refits and split(16, 16).images == 32
    assert split(47, 16).refits and not split(48, 16).refits
    nobody_held = replace(job, calibrate=job.held)
    assert not nobody_held.refits and nobody_held.images == 12
    none = CalibrationImages((), (), ())
    assert not replace(job, calibrate=none, held=none).refits


def test_the_limit_of_the_drop_counts_only_with_labels(job: Job) -> None:
    assert not job.labelled
    assert job.stored_options()["max_drop"] is None
    paths = (Path("a.jpg"), Path("b.jpg"))
    plain = replace(job, data=Images(paths, None))
    assert not plain.labelled and plain.stored_options()["data_images"] == 2
    labelled = replace(job, data=Images(paths, np.array([0, 1])))
    assert labelled.labelled
    assert labelled.stored_options() == {
        "method": "mse",
        "ranges": "calibrate",
        "max_drop": 1.0,
        "repair": True,
        "weights": "int8",
        "seed": 3,
        "data_images": 2,
    }
