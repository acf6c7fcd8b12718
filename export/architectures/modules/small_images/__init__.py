"""Networks for 32x32 images that no library has and many people trained, each fixed."""
