"""Quantization-aware training against quantization after training, on one network trained here.

    python benchmarks/qat.py CHECKPOINT TRAIN_DIR VAL_DIR CLASSES.json [--steps 100] [--work DIR]

The network is fine-tuned with fake quantization as pytorch-quantization does it: the input of every
convolution on one grid with the scale amax / 127, amax taken from the float network and then kept;
weights per output channel with amax = max|w|, which follows the weights; the head stays float, as
in the graphs. Batch norms keep their statistics. The state_dict with its `_amax` is exported
and quantized both ways, from the same images. Each INT8 graph is compared with the labels and with
the network that was trained, that is with fake quantization on.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from resdeploy.calibration import quantize
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import Bundle, read_bundle
from resdeploy.deploy.images.dataset import Images, read_data
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.metrics.logits import agreement, sqnr_db
from resdeploy.export import ExportOptions, export_checkpoint
from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint

_BATCH = 50
_QUANTILE = 0.9999


class _Quantizer(nn.Module):
    """Fake quantization to signed 8 bits, with `_amax` named as pytorch-quantization names it."""

    _amax: torch.Tensor

    def __init__(self, amax: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("_amax", amax)
        self.measuring = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self._amax / 127
        kept = torch.clamp(x / scale, -127, 127)
        return (kept + (kept.round() - kept).detach()) * scale


class _QuantizedConv(nn.Conv2d):
    """A convolution that rounds what it reads and its weights."""

    _input_quantizer: _Quantizer
    _weight_quantizer: _Quantizer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._input_quantizer.measuring:
            seen = torch.quantile(x.abs().flatten()[:: max(1, x.numel() // 2**22)], _QUANTILE)
            self._input_quantizer._amax = torch.maximum(self._input_quantizer._amax, seen)
            return super().forward(x)
        peak = self.weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
        self._weight_quantizer._amax = peak.clamp(min=1e-8)
        read, weight = self._input_quantizer(x), self._weight_quantizer(self.weight)
        result: torch.Tensor = self._conv_forward(read, weight, self.bias)
        return result


def with_quantizers(module: nn.Module) -> list[_Quantizer]:
    """Put quantizers into every convolution; returns those of the inputs, which still measure."""
    found = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.__class__ = _QuantizedConv
            layer._input_quantizer = _Quantizer(torch.zeros(()))
            layer._weight_quantizer = _Quantizer(torch.ones(layer.out_channels, 1, 1, 1))
            found.append(layer._input_quantizer)
    return found


def pixels(images: Images, bundle: Bundle) -> tuple[Float32s, np.ndarray]:
    """Every image as the network reads it, and its class."""
    preprocess = bundle.manifest.preprocess
    return (
        np.stack([read_input(path, preprocess) for path in images.paths]),
        np.asarray(images.truth),
    )


def fine_tune(module: nn.Module, inputs: Float32s, truth: np.ndarray, args: Any) -> None:
    """A few hundred steps of SGD on mirrored images; one schedule, not searched for."""
    torch.manual_seed(args.seed)
    x, y = torch.from_numpy(inputs), torch.from_numpy(truth)
    quantizers = with_quantizers(module)
    with torch.no_grad():
        for batch in x.split(_BATCH):
            module(batch)
    for quantizer in quantizers:
        quantizer.measuring = False
    module.requires_grad_(True)
    optimizer = torch.optim.SGD(module.parameters(), lr=args.rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    for step in range(args.steps):
        chosen = torch.randint(len(x), (_BATCH,))
        batch = x[chosen]
        if step % 2:
            batch = batch.flip(3)
        loss = nn.functional.cross_entropy(module(batch), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)


def torch_logits(module: nn.Module, inputs: Float32s) -> Float32s:
    """(N, classes) as the module gives them now."""
    with torch.no_grad():
        parts = [module(batch) for batch in torch.from_numpy(inputs).split(_BATCH)]
    return torch.cat(parts).numpy()


def graph_logits(path: Path, inputs: Float32s) -> Float32s:
    """(N, classes) of one file of a bundle."""
    with OrtSession(path, variant="int8", threads=1) as session:
        return np.concatenate(
            [session.run(inputs[at : at + _BATCH]) for at in range(0, len(inputs), _BATCH)]
        )


def figures(logits: Float32s, trained: Float32s, truth: np.ndarray) -> dict[str, float]:
    """Top-1 in percent, and agreement (percent) and SQNR (dB) with the network as trained."""
    return {
        "top1": round(float((logits.argmax(1) == truth).mean() * 100), 2),
        "agreement": round(agreement(trained, logits), 2),
        "sqnr_db": round(sqnr_db(trained, logits), 2),
    }


def main() -> None:
    """Train, export, quantize both ways, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("checkpoint", "train", "val", "classes"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    folder = args.work or Path(tempfile.mkdtemp())
    results = compare(args, folder)
    (folder / "qat.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, row in results.items():
        print(f"{name:34} " + "  ".join(f"{key} {value}" for key, value in row.items()))


def compare(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Name of a network or graph → its figures."""
    options = ExportOptions(output=folder / "float.bundle", classes=args.classes, overwrite=True)
    before = read_bundle(export_checkpoint(args.checkpoint, options).bundle)
    labels = before.manifest.labels
    inputs, truth = pixels(read_data(args.train, labels), before)
    val, val_truth = pixels(read_data(args.val, labels), before)
    loaded = read_checkpoint(args.checkpoint)
    module = build_module(loaded, identify(loaded, arch=None, assume={}))
    fine_tune(module, inputs, truth, args)
    file = folder / "qat_state_dict.pth"
    torch.save(module.state_dict(), file)
    trained = torch_logits(module, val)
    rows = {
        "float checkpoint": figures(graph_logits(before.graph("fp32"), val), trained, val_truth),
        "trained, with fake quantization": figures(trained, trained, val_truth),
    }
    options = ExportOptions(output=folder / "qat.bundle", classes=args.classes, overwrite=True)
    for source in ("checkpoint", "calibrate"):
        path = export_checkpoint(file, options).bundle
        quantize(path, args.train, ranges=source, force=True)
        rows["trained, fp32"] = figures(graph_logits(path / "fp32.onnx", val), trained, val_truth)
        for variant in ("int8", "int8-cpu"):
            logits = graph_logits(path / f"{variant}.onnx", val)
            rows[f"{variant}, --ranges {source}"] = figures(logits, trained, val_truth)
    quantize(before.path, args.train, force=True)
    for variant in ("int8", "int8-cpu"):
        logits = graph_logits(before.path / f"{variant}.onnx", val)
        rows[f"{variant} of the float checkpoint"] = figures(logits, trained, val_truth)
    return rows


if __name__ == "__main__":
    main()
