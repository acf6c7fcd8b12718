"""Files that come with a model from a hub: Hugging Face's and timm's `config.json`.

Transformers: `config.json` names the classes and what the weights cannot tell,
`preprocessor_config.json` the pixels. Its ConvNext processor, which ResNets use, resizes the
shorter side to edge / crop_pct below 384 pixels and squashes to the edge above.
timm: `pretrained_cfg` holds everything; the shorter side becomes floor(size / crop_pct).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resdeploy.deploy.errors import CheckpointError, ResdeployError
from resdeploy.deploy.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resdeploy.deploy.reading import read_json
from resdeploy.export.checkpoint.sidecars.dilation import dilated_by_arguments
from resdeploy.export.checkpoint.sidecars.sidecar import Sidecar, joined, shorter_side, triple
from resdeploy.export.checkpoint.state_dict import labels_of

CONFIG = "config.json"
_PROCESSOR = "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SMALL_EDGE_PX = 384
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_FAILURES = (ValueError, KeyError, TypeError, AttributeError, ResdeployError, OSError)


def weights_in(folder: Path) -> Path:
    """The checkpoint in a model's folder.

    Raises:
        CheckpointError: there is none, or there are several.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    if (folder / "saved_model.pb").is_file():
        raise CheckpointError(
            f"{folder} is a TensorFlow SavedModel, which is not read: convert it with "
            f"python -m tf2onnx.convert --saved-model {folder} --output model.onnx"
        )
    raise CheckpointError(
        f"{folder} is a folder without {' or '.join(WEIGHTS)}: give the checkpoint file inside it"
    )


def read_hub(path: Path) -> Sidecar | None:
    """What the configuration files beside the checkpoint `path` say; None where there are none.

    Raises:
        CheckpointError: one of them is damaged.
    """
    found = []
    config = _json(path.parent / CONFIG)
    if config is not None:
        if "architecture" in config:
            found.append(_checked(path, CONFIG, _timm, config))
        elif "model_type" in config:
            found.append(_checked(path, CONFIG, _transformers, config))
    processor = _json(path.parent / _PROCESSOR)
    if processor is not None:
        found.append(_checked(path, _PROCESSOR, _pixels, processor))
    return joined(found)


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = read_json(path)
    except (ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON ({error}): mend it or move it away from the checkpoint"
        ) from error
    return content if isinstance(content, dict) else None


def _checked(path: Path, name: str, read: Any, content: dict[str, Any]) -> Sidecar:
    try:
        sidecar: Sidecar = read(content)
    except _FAILURES as error:
        raise CheckpointError(
            f"{path.parent / name} is not understood ({type(error).__name__}: {error}): "
            "mend it or move it away from the checkpoint"
        ) from error
    return sidecar


def _transformers(config: Mapping[str, Any]) -> Sidecar:
    kind = str(config["model_type"])
    settings = {}
    if kind.startswith("mobilenet"):
        settings["padding"] = "tf" if config.get("tf_padding", True) else "torch"
        settings["bn_eps"] = _number(config.get("layer_norm_eps", 0.001))
    if kind == "efficientnet":
        settings["padding"] = "tf"
        settings["bn_eps"] = _number(config.get("batch_norm_eps", 0.001))
    if config.get("downsample_in_bottleneck"):
        settings["stride"] = "1x1"
    if config.get("hidden_act") in ("relu", "relu6"):
        settings["activation"] = config["hidden_act"]
    labels = labels_of(config.get("id2label"))
    if labels and all(label == f"LABEL_{index}" for index, label in enumerate(labels)):
        labels = None
    return Sidecar(CONFIG, None, settings, None, labels)


def _number(value: Any) -> str:
    """0.001 as "1e-3", the form in which settings have it."""
    mantissa, _, exponent = f"{float(value):.6e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _pixels(config: Mapping[str, Any]) -> Sidecar:
    mean, std = config.get("image_mean", IMAGENET_MEAN), config.get("image_std", IMAGENET_STD)
    if not config.get("do_normalize", True):
        mean, std = (0, 0, 0), (1, 1, 1)
    # Pixels times rescale_factor, less mean, over std; ours are pixels / 255.
    scale = 1 / (255 * float(config.get("rescale_factor", 1 / 255)))
    if not config.get("do_rescale", True):
        scale = 1 / 255
    mean, std = triple(list(mean), scale), triple(list(std), scale)
    filter_name = _FILTERS[int(config.get("resample", 2))]
    size = config.get("size", 224)
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else size
    if edge is None:  # exact height and width
        exact = (int(size["height"]), int(size["width"]))
        preprocess = Preprocess(_PROCESSOR, exact, None, mean, std, filter_name).checked()
    elif config.get("do_center_crop") and "crop_size" in config:
        crop = config["crop_size"]
        crop = crop["height"] if isinstance(crop, Mapping) else crop
        preprocess = shorter_side(_PROCESSOR, int(edge), int(crop), mean, std, filter_name)
    elif "crop_pct" in config and int(edge) < _SMALL_EDGE_PX:
        resize = int(int(edge) / float(config["crop_pct"] or 1))
        preprocess = shorter_side(_PROCESSOR, resize, int(edge), mean, std, filter_name)
    else:
        exact = (int(edge), int(edge))
        preprocess = Preprocess(_PROCESSOR, exact, None, mean, std, filter_name).checked()
    return Sidecar(_PROCESSOR, preprocess=preprocess)


def _timm(config: Mapping[str, Any]) -> Sidecar:
    cfg = {**config, **(config.get("pretrained_cfg") or {})}
    name = str(config["architecture"])
    settings = {"padding": "tf", "bn_eps": "1e-3"} if name.startswith("tf_") else {}
    settings.update(dilated_by_arguments(config))
    preprocess = None
    if "input_size" in cfg:
        size = int(cfg["input_size"][-1])
        mean = triple(list(cfg.get("mean", IMAGENET_MEAN)))
        std = triple(list(cfg.get("std", IMAGENET_STD)))
        filter_name = str(cfg.get("interpolation", "bilinear"))
        resize = int(size / float(cfg.get("crop_pct") or 0.875))
        if cfg.get("crop_mode") == "squash":
            crop = (size, size)
            preprocess = Preprocess(CONFIG, (resize, resize), crop, mean, std, filter_name)
        else:
            preprocess = shorter_side(CONFIG, resize, size, mean, std, filter_name)
    labels = labels_of(cfg.get("label_names"))
    return Sidecar(CONFIG, name, settings, preprocess, labels)
