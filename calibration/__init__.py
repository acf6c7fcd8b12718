"""From the float graph of a bundle and some images to INT8 graphs for every target.

    from resdeploy.calibration import quantize
    quantize(Path("resnext50.bundle"), Path("photos/calib"))

The names below are loaded when they are first used, so importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from resdeploy.deploy.optional import lazy_names

if TYPE_CHECKING:
    from resdeploy.calibration.job import QuantizeReport as QuantizeReport
    from resdeploy.calibration.layerwise import layer_errors as layer_errors
    from resdeploy.calibration.pipeline import quantize as quantize

_HOMES = {"QuantizeReport": "job", "layer_errors": "layerwise", "quantize": "pipeline"}

__all__ = ["QuantizeReport", "layer_errors", "quantize"]

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
