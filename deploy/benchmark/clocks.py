"""Clocks of the CPU and of a Jetson's GPU, from sysfs: unlike `jetson_clocks`, it needs no root.

`sudo jetson_clocks` raises the lowest clock that a governor may choose to the highest that the
power mode allows. Clocks are pinned if the two are equal everywhere. If not, the governor decides,
and short runs are timed while the clocks still rise.

    cpu   devices/system/cpu/cpufreq/policy*/scaling_{min,cur,max}_freq           in kHz
    gpu   class/devfreq/{17000000.gpu,17000000.gv11b,gpu-gpc-0,…}/{min,cur,max}_freq   in Hz
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_SYSFS = Path("/sys")
# by JetPack and chip; gpu-nvd-* of a Thor is its video engine
_JETSON_GPU = re.compile(r"[0-9a-f]+\.(gpu|gp10b|gv11b|ga10b|gb10b)|gpu-gpc-\d+")
_KHZ, _HZ = 1e-3, 1e-6


@dataclass(frozen=True)
class Clock:
    """The range and the current value of a clock, in MHz; `name` is "cpu" or "gpu"."""

    name: str
    min_mhz: float
    current_mhz: float
    max_mhz: float

    @property
    def is_pinned(self) -> bool:
        """Whether the governor has no choice."""
        return self.min_mhz == self.max_mhz


def read_clocks(sysfs: Path = _SYSFS) -> tuple[Clock, ...]:
    """The clocks that the system reports; cores and GPUs with equal clocks count once."""
    found = [
        *_read(sysfs / "devices/system/cpu/cpufreq", "cpu", r"policy\d+", "scaling_{}_freq", _KHZ),
        *_read(sysfs / "class/devfreq", "gpu", _JETSON_GPU, "{}_freq", _HZ),
    ]
    return tuple(dict.fromkeys(found))


def are_pinned(clocks: Sequence[Clock]) -> bool | None:
    """Whether all clocks are pinned, as after `jetson_clocks`; None if none is known."""
    return all(clock.is_pinned for clock in clocks) if clocks else None


def _read(
    folder: Path, name: str, pattern: str | re.Pattern[str], file: str, in_mhz: float
) -> Iterator[Clock]:
    try:
        places = sorted(path for path in folder.iterdir() if re.fullmatch(pattern, path.name))
    except OSError:
        return
    for place in places:
        try:
            low, now, high = (
                round(int((place / file.format(which)).read_text()) * in_mhz, 1)
                for which in ("min", "cur", "max")
            )
        except (OSError, ValueError):  # a core that is off, or "<unknown>"
            continue
        yield Clock(name, low, now, high)
