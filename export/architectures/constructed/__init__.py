"""Networks that torchvision or timm constructs itself."""
