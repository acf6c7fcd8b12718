"""Compares the feature maps of a backbone's variants with PyTorch's, and judges them."""
