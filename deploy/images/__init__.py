"""From image files to the network's input: finding, labels, decoding ahead, preprocessing."""
