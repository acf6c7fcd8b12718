"""Answers over HTTP and gRPC: bundles in, the Open Inference Protocol (V2) out."""
