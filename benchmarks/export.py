"""How much the proofs cost: `resdeploy export` over a bare script that only writes an ONNX file.

    python benchmarks/export.py [--arch resnext50_32x4d] [--rounds 5] [--json FILE]

The bare script builds the same torchvision model, loads the weights, exports with the same
exporter and runs onnxsim. `resdeploy export` also finds the architecture, folds and proves the
fold, writes FP16 and compares both files with PyTorch. Both run as fresh processes, in turns.
"""

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
import torchvision
from timing import interleaved, medians, show, write_json

_BARE_SCRIPT = """
import sys, warnings, onnx, onnxsim, torch, torchvision
warnings.simplefilter("ignore")
checkpoint, arch, output = sys.argv[1:]
model = torchvision.models.get_model(arch, num_classes=7)
model.load_state_dict(torch.load(checkpoint, weights_only=True))
model.eval()
torch.onnx.export(
    model, (torch.zeros(2, 3, 224, 224),), output, dynamo=False, opset_version=17,
    input_names=["input"], output_names=["logits"],
    dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
)
simplified, equal = onnxsim.simplify(onnx.load(output))
assert equal
onnx.save(simplified, output)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arch", default="resnext50_32x4d")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = folder / "network.pth"
        torch.manual_seed(0)
        model = torchvision.models.get_model(options.arch, num_classes=7)
        torch.save(model.state_dict(), checkpoint)
        resdeploy = str(Path(sys.executable).with_name("resdeploy"))
        commands = {
            "bare script": [sys.executable, "-c", _BARE_SCRIPT, str(checkpoint), options.arch,
                            str(folder / "bare.onnx")],
            "resdeploy export": [resdeploy, "export", str(checkpoint), "--overwrite", "--json",
                                 "-o", str(folder / "network.bundle")],
        }  # fmt: skip
        taken = interleaved(
            {name: partial(_run, words) for name, words in commands.items()}, options.rounds
        )
    middle = medians(taken)
    ratio = middle["resdeploy export"] / middle["bare script"]
    show(
        f"{options.arch}, {options.rounds} rounds, medians",
        ("", "seconds", "ratio"),
        [(name, f"{s:.2f}", f"{s / middle['bare script']:.2f}") for name, s in middle.items()],
    )
    write_json(options.json, {"arch": options.arch, "seconds": taken, "ratio": ratio})


def _run(words: list[str]) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
