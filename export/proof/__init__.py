"""Shows that the written graphs give PyTorch's answers."""
