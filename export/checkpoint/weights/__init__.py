"""From the tensors of a file to those of one plain network."""
