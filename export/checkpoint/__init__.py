"""From a file somebody saved to named tensors and the network they belong to."""
