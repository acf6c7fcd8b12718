"""Scoring on a Ray cluster: images by location, a bundle that travels, one session per actor."""
