"""What an export or an adoption made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.manifest import Manifest


@dataclass(frozen=True)
class ExportReport:
    """The finished bundle, and top-1 accuracies in percent where labelled images were given."""

    bundle: Path
    manifest: Manifest
    accuracy: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """What `resdeploy export --json` and `resdeploy adopt --json` print."""
        manifest = self.manifest.to_json()
        return {
            "bundle": str(self.bundle),
            **manifest["model"],
            **{key: manifest[key] for key in ("labels", "preprocess", "assumptions")},
            **{key: manifest[key] for key in ("variants", "proofs")},
            "accuracy": self.accuracy,
        }
