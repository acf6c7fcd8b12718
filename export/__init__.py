"""From a PyTorch checkpoint to proven ONNX graphs; the only home of torch.

    from resdeploy.export import ExportOptions, export_checkpoint
    export_checkpoint(Path("resnext50.pth"), ExportOptions(data=Path("photos/val")))

The names below are loaded when they are first used, so importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from resdeploy.deploy.optional import lazy_names

if TYPE_CHECKING:
    from resdeploy.export.pipeline import ExportOptions as ExportOptions
    from resdeploy.export.pipeline import ExportReport as ExportReport
    from resdeploy.export.pipeline import export_checkpoint as export_checkpoint

_HOMES = {
    "ExportOptions": "pipeline",
    "ExportReport": "pipeline",
    "export_checkpoint": "pipeline",
}

__all__ = ["ExportOptions", "ExportReport", "export_checkpoint"]

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
