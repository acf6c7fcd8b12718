"""Networks of the Inception line: GoogLeNet, Inception v3, Xception."""
