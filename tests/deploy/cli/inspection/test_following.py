"""What `inspect` and `doctor` name as the next commands is of use for what was found."""

from pathlib import Path
from typing import Any

import pytest

from resdeploy.deploy.cli.inspection.following import (
    next_after,
    next_for_int8,
    next_on_this_machine,
)

_NET = Path("my net.pth")
_CPU = "pip install 'resdeploy[cpu]'"


@pytest.mark.parametrize(
    ("description", "data", "expected"),
    [
        ({"kind": "checkpoint", "problem": "no known network"}, None, ()),
        (
            {"kind": "checkpoint", "architecture": "resnet18", "features": 512},
            None,
            (
                "resdeploy export 'my net.pth' --data DIR",
                "resdeploy inspect 'my net.pth' --data DIR",
            ),
        ),
        (
            {"kind": "checkpoint", "architecture": "resnet18"},
            Path("val"),
            ("resdeploy export 'my net.pth' --data val",),
        ),
        (
            {"kind": "ONNX graph", "resdeploy": "another tool's"},
            None,
            ("resdeploy adopt 'my net.pth' --preprocess NAME --classes FILE",),
        ),
        (
            {"kind": "ONNX graph", "variant": "fp16"},
            None,
            ("resdeploy predict 'my net.pth' IMAGE", "resdeploy verify 'my net.pth'"),
        ),
        (
            {"kind": "bundle"},
            None,
            ("resdeploy predict 'my net.pth' IMAGE", "resdeploy verify 'my net.pth'"),
        ),
        (
            {"kind": "bundle", "features": [{"name": "C5"}]},
            None,
            ("resdeploy verify 'my net.pth'", "resdeploy bench 'my net.pth'"),
        ),
        (
            {"kind": "TensorRT engine"},
            None,
            ("resdeploy predict 'my net.pth' IMAGE", "resdeploy bench 'my net.pth'"),
        ),
    ],
)
def test_after_a_look(
    description: dict[str, Any], data: Path | None, expected: tuple[str, ...]
) -> None:
    assert next_after(_NET, description, data) == expected


def test_after_a_look_at_int8() -> None:
    assert next_for_int8(Path("a.bundle")) == (
        "resdeploy verify a.bundle --precision int8 --explain",
        "resdeploy bench a.bundle --precision fp32,int8",
    )


def test_on_a_machine_without_anything_it_is_what_to_install() -> None:
    cannot = [
        ("export checkpoints", "torch: not installed", "pip install 'resdeploy[export]'"),
        ("adopt", "onnx: not installed", "pip install 'resdeploy[export]'"),
        ("build and run TensorRT engines", "tensorrt: not installed", "pip install tensorrt"),
        ("predict, verify and bench on the CPU", "onnxruntime: not installed", _CPU),
    ]
    assert next_on_this_machine([], cannot) == (
        _CPU,
        "pip install 'resdeploy[export]'",
    )
    works = ["export checkpoints", "predict, verify and bench on the CPU"]
    assert next_on_this_machine(works, cannot) == (
        "resdeploy export CHECKPOINT --data DIR",
        "resdeploy predict BUNDLE IMAGE",
    )
