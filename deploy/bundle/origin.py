"""Whose answers a bundle is held to: PyTorch's, or those of an ONNX graph that was adopted."""

from resdeploy.deploy.bundle.manifest import Manifest

ADOPTION = "adoption"  # among the proofs: what the graph was, and what was done to it
NEW_REFERENCE = "reference"  # among the proofs: what replaced the reference that export recorded


def is_adopted(manifest: Manifest) -> bool:
    """Whether the bundle comes from a foreign ONNX graph, which PyTorch never answered for."""
    return ADOPTION in manifest.proofs


def original_name(manifest: Manifest) -> str:
    """What gave the recorded answers, as sentences name it."""
    return "the adopted graph" if is_adopted(manifest) else "PyTorch"


def recorded_by(manifest: Manifest) -> str:
    """What gave the logits in reference.npz; quantize may have replaced those of the original."""
    return "fp32.onnx" if NEW_REFERENCE in manifest.proofs else original_name(manifest)
