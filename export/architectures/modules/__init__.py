"""The networks as `torch.nn` modules; imported only when one is built."""
