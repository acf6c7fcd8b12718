"""TensorRT engines: built in a child process, kept with a sidecar, run through CUDA."""
