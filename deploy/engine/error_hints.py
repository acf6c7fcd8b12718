"""What to do about an error TensorRT logs: a table from its words to advice, and the noise to skip.

The words are TensorRT's own (8.6 to 11.4 and TensorRT-RTX 1.7); the first row that matches wins.
"""

import re
from collections.abc import Sequence

_REQUANTIZE = "quantize again with resdeploy quantize BUNDLE --calib DIR"

# words in the log -> what to do
_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"has type Int32 but must have type FP8|input has type Int32",
        f"an int32 bias is behind a DequantizeLinear; TensorRT wants float biases: {_REQUANTIZE}",
    ),
    (
        r"shiftIsAllZeros|[Nn]on-zero zero point|asymmetric quantization",
        f"TensorRT quantizes symmetrically, with zero points 0: {_REQUANTIZE} (int8-cpu is not for "
        "TensorRT)",
    ),
    (
        r"unsupported input type of UINT8|input has type UInt8",
        f"TensorRT takes int8, not uint8: {_REQUANTIZE} (int8-cpu is not for TensorRT)",
    ),
    (
        r"[Ss]cale coefficients must all be positive",
        f"a quantization scale is 0 or vanished in half precision: {_REQUANTIZE}",
    ),
    (
        r"Failed to import initializer",
        f"a constant has a type TensorRT does not know; 16-bit quantization is one: {_REQUANTIZE}",
    ),
    (
        r"must have same input types|same type.*Float and Half|of types Float and Half",
        "the graph mixes float and half without a Cast: export again with --precision fp16",
    ),
    (
        r"Plugin not found|No importer registered for op|getPluginCreator",
        "the graph holds an operator that this TensorRT does not know: export the checkpoint again "
        "with resdeploy export, which writes standard operators only",
    ),
    (
        r"[Oo]ut ?[Oo]f ?[Mm]emory|Device memory is insufficient|insufficient workspace"
        r"|Could not find any implementation for node|NvMapMemAlloc|Cuda failure: 2\b",
        "there was not enough memory: raise --workspace-mib, lower the largest --batch, or free "
        "memory (on a Jetson: stop the desktop, add swap; see docs/jetson.md)",
    ),
    (
        r"MODEL_DESERIALIZE_FAILED|Failed to parse (the )?ONNX model from file|ModelProto",
        "the file is truncated, or is not an ONNX file: export again",
    ),
    (
        r"FP32 GEMM is not supported|check_turing_op_compatibility",
        "this GPU's architecture has no float32 kernels in TensorRT-RTX: use --precision fp16",
    ),
    (
        r"CUDA driver version is insufficient|cudaError(?:Insufficient)?.{0,3}35|failure[^:]*: 35",
        "the NVIDIA driver is missing or too old for this TensorRT: nvidia-smi shows the driver; "
        "install a newer one, or a TensorRT for an older CUDA",
    ),
    (
        r"no kernel image is available|Target GPU SM \d+ is not supported|[Uu]nsupported SM",
        "this TensorRT has no kernels for this GPU: use a version that supports it "
        "(docs/tensorrt.md has the table)",
    ),
    (
        r"missing dimensions in profile|Dimension mismatch|no optimization profile",
        "the batch range does not fit the graph's input: export again, or check --batch",
    ),
    (
        r"ReduceMean|reduceTensor|Unsqueeze.*axes|opset (?:version )?\d+ .*not supported"
        r"|[Uu]nsupported ONNX opset",
        "the graph uses a newer operator set than this TensorRT reads: export with --opset 17",
    ),
    (
        r"libnvinfer_lean|lean runtime",
        "a version-compatible engine needs the lean runtime library: install tensorrt-lean, or "
        "build without --version-compatible",
    ),
    (
        r"No space left on device|ENOSPC",
        "the disk is full: free space, then build again",
    ),
)

# logged as errors by a build that succeeds: without a GPU, TensorRT-RTX asks the driver in vain
_NOISE_WITHOUT_GPU = re.compile(
    r"catchCudaError|cudaError 35|CUDA initialization failure|CUDA driver version is insufficient"
)
_PREFIX = re.compile(
    r"^(?:\[[^\]]*\]\s*)*(?:(?:IBuilder::\w+|ICudaEngine::\w+|Error Code \d+|Internal Error"
    r"|API Usage Error)\s*[:.]?\s*)*"
)


def hint_for(text: str) -> str | None:
    """What to do about this error text, or None when the table does not know it."""
    return next((advice for words, advice in _HINTS if re.search(words, text)), None)


def without_noise(errors: Sequence[str], *, has_gpu: bool) -> list[str]:
    """The error lines that mean something, each once, in order."""
    unique = dict.fromkeys(" ".join(error.split()) for error in errors if error.strip())
    return [line for line in unique if has_gpu or not _NOISE_WITHOUT_GPU.search(line)]


def explain(errors: Sequence[str], *, has_gpu: bool) -> str:
    """One line of a log, with advice: the first that the table knows, else the first of all."""
    lines = without_noise(errors, has_gpu=has_gpu)
    if not lines:
        return "it gave no reason"
    chosen = next((line for line in lines if hint_for(line)), lines[0])
    advice = hint_for(chosen)
    said = _shorten(_PREFIX.sub("", chosen) or chosen)
    return f"{said}: {advice}" if advice else said


def _shorten(text: str, limit: int = 300) -> str:
    text = text.rstrip(" .\n")
    return text if len(text) <= limit else text[: limit - 1] + "…"
