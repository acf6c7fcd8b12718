"""Quantization ranges: how they are chosen, stored and handed to TensorRT."""
