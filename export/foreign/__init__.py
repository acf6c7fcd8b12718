"""A classifier that another tool wrote as ONNX, in the form that every other step works on."""
