"""One small file per family of networks."""
