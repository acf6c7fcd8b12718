"""From a PyTorch module to ONNX: trace, fold, simplify, half precision, write."""
