"""What a person types next after `inspect` and `doctor`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resdeploy.deploy.cli.shell.next_steps import as_typed


def next_after(path: Path, description: Mapping[str, Any], data: Path | None) -> tuple[str, ...]:
    """The commands after `inspect path`, for what `describe` found there; none for what is no use.

    `data` is the folder of images that the path was inspected with.
    """
    name, kind = as_typed(path), description["kind"]
    if kind == "checkpoint":
        if description.get("architecture") is None:
            return ()
        images = "DIR" if data is None else as_typed(data)
        look = () if data else (f"resdeploy inspect {name} --data DIR",)
        return (f"resdeploy export {name} --data {images}", *look)
    if kind == "ONNX graph" and "variant" not in description:
        return (f"resdeploy adopt {name} --preprocess NAME --classes FILE",)
    if description.get("features"):  # a backbone names no classes
        return (f"resdeploy verify {name}", f"resdeploy bench {name}")
    other = "bench" if kind == "TensorRT engine" else "verify"
    return (f"resdeploy predict {name} IMAGE", f"resdeploy {other} {name}")


def next_for_int8(bundle: Path) -> tuple[str, str]:
    """The commands after a look at a bundle's INT8 layers."""
    name = as_typed(bundle)
    return (
        f"resdeploy verify {name} --precision int8 --explain",
        f"resdeploy bench {name} --precision fp32,int8",
    )


def next_on_this_machine(
    can: Sequence[str], cannot: Sequence[tuple[str, str, str]]
) -> tuple[str, ...]:
    """The commands after `doctor`: what works here, else how to get the first thing that does not.

    Both as `doctor.abilities` gives them.
    """
    works = {
        "export checkpoints": "resdeploy export CHECKPOINT --data DIR",
        "predict, verify and bench on the CPU": "resdeploy predict BUNDLE IMAGE",
        "build and run TensorRT engines": "resdeploy build BUNDLE",
    }
    found = [command for ability, command in works.items() if ability in can]
    # what a GPU is for is no use without one; and ONNX Runtime is small beside PyTorch
    ways = {ability: how for ability, _, how in cannot}
    found += [ways[ability] for ability in reversed(list(works)[:2]) if ways.get(ability)]
    return tuple(dict.fromkeys(found))[:2]
