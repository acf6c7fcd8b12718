"""The commands that make one form of a network from another."""
