"""Opens sessions on any backend and turns images into predictions."""
