"""What calibration images show of every tensor: extremes, histograms, moments."""
