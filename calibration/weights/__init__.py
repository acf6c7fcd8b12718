"""Integer weights and biases that keep the float graph's answers."""
