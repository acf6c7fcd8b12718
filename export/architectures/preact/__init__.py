"""Pre-activation ResNets: what their authors call them, their layers in order, the family."""
