"""What was inferred about a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from resdeploy.export.matching.fitting import Fit

MatchedBy = Literal["names", "structure", "sidecar"]


@dataclass(frozen=True)
class Architecture:
    """What was inferred about a checkpoint.

    Attributes:
        name: torchvision's name where there is one, else e.g. "resnet(2-3-1-2, 8x14d)".
        family: e.g. "resnet", or "custom" for the user's own network.
        matched_by: "names" or "structure" of the tensors, or "sidecar": a file beside them or data
            in the file names the network, and the tensors agree.
        classes: outputs of the head, or None: no head, the network yields pooled features.
        features: width of the pooled features; parameters: weights and biases, statistics excluded.
        input_size_px, preprocess: the usual ones of the family, names as in `deploy.preprocess`.
        evidence: how it was inferred; assumptions: what weights cannot tell, each with the option
            that changes it; extras: what in the checkpoint was ignored. All are sentences.
    """

    name: str
    family: str
    matched_by: MatchedBy
    classes: int | None
    features: int
    parameters: int
    input_size_px: int
    preprocess: str
    evidence: tuple[str, ...]
    assumptions: tuple[str, ...]
    extras: tuple[str, ...]
    fit: Fit | None = field(repr=False, default=None)
    settings: Mapping[str, str] = field(repr=False, default_factory=dict)

    @property
    def maps_only(self) -> bool:
        """Whether it is an encoder cut off so early that only feature maps can be exported."""
        return self.fit is not None and self.fit.network.maps_only
