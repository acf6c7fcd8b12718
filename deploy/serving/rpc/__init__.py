"""gRPC: the Open Inference Protocol's service, its messages built without generated files."""
