"""From names and shapes to the one known network that has them."""
