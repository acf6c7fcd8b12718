"""Bundles as a model repository of NVIDIA Triton, and as an InferenceService of KServe."""
