"""Opens the files that checkpoints are saved in: zip, legacy and plain pickles, safetensors."""
