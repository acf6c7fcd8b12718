"""The float graph as quantization sees it, where Q/DQ goes, and the INT8 graph."""
