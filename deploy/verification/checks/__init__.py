"""Checks of a deployment: figures with their intervals against limits."""
