"""Watts of a Jetson while a network runs, from the INA3221 power monitors on its board.

    bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in{n}_label, in{n}_input (mV), curr{n}_input (mA)

VDD_IN is the whole module; a board that has no rail of that name has the sum of its rails, each of
which is a part. Power is sampled every 20 ms while the network runs by itself: idle power is in it,
as it is on a battery. Images per joule = images per second / watts.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

_SYSFS = Path("/sys")
_WHOLE_MODULE = ("VDD_IN", "VIN_SYS_5V0", "POM_5V_IN")
_NO_RAIL = ("sum of shunt voltages", "NC")
_EVERY_S = 0.02
_MILLI = 1e-3


@dataclass(frozen=True)
class Power:
    """The mean over a run of some seconds, and how many samples it is of."""

    watts: float
    images_per_joule: float
    samples: int


def read_watts(sysfs: Path = _SYSFS) -> float | None:
    """The power that the board takes now; None where there is no such monitor."""
    rails: dict[str, float] = {}
    for label in sorted(sysfs.glob("bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label")):
        try:
            name = label.read_text(encoding="utf-8", errors="replace").strip()
            number = label.name.removeprefix("in").removesuffix("_label")
            volts = int((label.parent / f"in{number}_input").read_text()) * _MILLI
            amperes = int((label.parent / f"curr{number}_input").read_text()) * _MILLI
        except (OSError, ValueError):  # a channel that is off, or has no current
            continue
        if name not in _NO_RAIL:
            rails[name] = volts * amperes
    whole = next((rails[name] for name in _WHOLE_MODULE if name in rails), None)
    return whole if whole is not None else sum(rails.values()) if rails else None


def measure_power(
    run: Callable[[], object],
    batch: int,
    *,
    seconds: float,
    read: Callable[[], float | None] = read_watts,
) -> Power | None:
    """Run for about `seconds` and sample the power meanwhile; None where it cannot be read.

    `run` answers one batch of `batch` images.
    """
    if read() is None:
        return None
    found: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_EVERY_S):
            if (watts := read()) is not None:
                found.append(watts)

    sampler = threading.Thread(target=sample)
    sampler.start()
    begun, runs = monotonic(), 0
    try:
        while (taken_s := monotonic() - begun) < seconds or not runs:
            run()
            runs += 1
    finally:
        ended.set()
        sampler.join()
    if not found:
        return None
    watts = sum(found) / len(found)
    return Power(watts, batch * runs / taken_s / watts, len(found))
