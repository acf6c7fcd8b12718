"""Watts out of the sysfs trees of an Orin Nano, an AGX Orin and a machine without monitors."""

import time
from pathlib import Path

import pytest

from resdeploy.deploy.benchmark.power import measure_power, read_watts


def _rail(sysfs: Path, number: int, label: str, millivolts: object, milliamperes: object) -> None:
    folder = sysfs / "bus" / "i2c" / "drivers" / "ina3221" / "1-0040" / "hwmon" / "hwmon1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"in{number}_label").write_text(f"{label}\n")
    (folder / f"in{number}_input").write_text(f"{millivolts}\n")
    (folder / f"curr{number}_input").write_text(f"{milliamperes}\n")


def test_the_whole_module_counts_its_parts_in(tmp_path: Path) -> None:
    _rail(tmp_path, 1, "VDD_IN", 5000, 1500)
    _rail(tmp_path, 2, "VDD_CPU_GPU_CV", 5000, 400)
    _rail(tmp_path, 3, "VDD_SOC", 5000, 300)
    _rail(tmp_path, 7, "sum of shunt voltages", 3, 1)
    assert read_watts(tmp_path) == pytest.approx(7.5)


def test_without_a_rail_for_the_module_the_parts_are_added(tmp_path: Path) -> None:
    _rail(tmp_path, 1, "VDD_GPU_SOC", 19000, 200)
    _rail(tmp_path, 2, "VDD_CPU_CV", 19000, 100)
    _rail(tmp_path, 3, "NC", 19000, 900)
    _rail(tmp_path, 4, "VDDQ_VDD2", 19000, "")  # a channel that is off
    assert read_watts(tmp_path) == pytest.approx(5.7)


def test_elsewhere_there_is_nothing_to_read(tmp_path: Path) -> None:
    assert read_watts(tmp_path) is None
    assert measure_power(lambda: None, 1, seconds=0.1, read=lambda: None) is None


def test_images_per_joule_follow_from_the_runs_and_the_mean(tmp_path: Path) -> None:
    runs = []

    def run() -> None:
        time.sleep(0.05)
        runs.append(1)

    found = measure_power(run, 8, seconds=0.4, read=lambda: 4.0)
    assert found is not None and found.watts == 4.0 and found.samples > 1
    # joules = watts x seconds, and a run takes 0.05 s at least
    assert 0 < found.images_per_joule <= 8 / (0.05 * 4.0)
