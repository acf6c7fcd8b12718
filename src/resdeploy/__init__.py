"""From a trained image classifier's `.pth` file to a proven edge deployment.

from resdeploy.deploy import load          predict, verify, bench: needs no torch
from resdeploy.export import export_checkpoint
from resdeploy.calibration import quantize
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # costs 20 ms: only for those who ask

    return version("resdeploy")
