"""Figures and their uncertainty, from arrays alone: logits, intervals, times."""
