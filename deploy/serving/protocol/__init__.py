"""The Open Inference Protocol: what it sends, to plain values and back."""
