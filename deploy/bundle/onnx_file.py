"""Reads the manifest that every ONNX file written by resdeploy carries in its metadata."""

from pathlib import Path

from resdeploy.deploy.bundle.loops import check_no_loops
from resdeploy.deploy.bundle.manifest import Manifest, manifest_of_graph
from resdeploy.deploy.ort import read_facts


def read_graph_manifest(path: Path) -> Manifest:
    """The manifest inside a lone ONNX file; raises BundleError when it carries none."""
    check_no_loops(path)
    facts = read_facts(path)
    manifest, _ = manifest_of_graph(facts.properties, path, facts.input, facts.output)
    return manifest
