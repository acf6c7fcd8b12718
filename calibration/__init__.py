"""From the float graph of a bundle and some pictures to INT8 graphs for every target.

    from resdeploy.calibration import quantize
    quantize(Path("resnext50.bundle"), Path("photos/calib"))

The names below are loaded when they are first used, so importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from resdeploy.deploy.optional import lazy_names

if TYPE_CHECKING:
    from resdeploy.calibration.pipeline import QuantizeReport as QuantizeReport
    from resdeploy.calibration.pipeline import quantize as quantize

_HOMES = {"QuantizeReport": "pipeline", "quantize": "pipeline"}

__all__ = ["QuantizeReport", "quantize"]

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
