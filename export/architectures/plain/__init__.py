"""Networks without branches: AlexNet and VGG."""
