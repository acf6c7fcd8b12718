"""From a PyTorch checkpoint to proven ONNX graphs; the only home of torch.

    from resdeploy.export import ExportOptions, export_checkpoint
    export_checkpoint(Path("resnext50.pth"), ExportOptions(data=Path("photos/val")))

The names below are loaded when they are first used, so importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from resdeploy.deploy.optional import lazy_names

if TYPE_CHECKING:
    from resdeploy.export.adoption import AdoptOptions as AdoptOptions
    from resdeploy.export.adoption import adopt as adopt
    from resdeploy.export.pipeline import ExportOptions as ExportOptions
    from resdeploy.export.pipeline import export_checkpoint as export_checkpoint
    from resdeploy.export.proof.live import open_checkpoint as open_checkpoint
    from resdeploy.export.report import ExportReport as ExportReport

_HOMES = {
    "AdoptOptions": "adoption",
    "adopt": "adoption",
    "ExportOptions": "pipeline",
    "ExportReport": "report",
    "export_checkpoint": "pipeline",
    "open_checkpoint": "proof.live",
}

__all__ = [
    "AdoptOptions",
    "ExportOptions",
    "ExportReport",
    "adopt",
    "export_checkpoint",
    "open_checkpoint",
]

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
