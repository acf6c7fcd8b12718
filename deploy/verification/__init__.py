"""Whether a deployment still gives PyTorch's answers: figures, limits, verdict and reports."""
