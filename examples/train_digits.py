"""Trains the demo's checkpoint: scikit-learn's digits -> digits_mobilenet_v2.pth, a state_dict.

    python examples/train_digits.py

An ordinary training script, as a user of resdeploy would have written it: torchvision's
MobileNetV2 at width 0.25, torchvision's transforms, `torch.save(model.state_dict())`, and a
class_indices.json beside it. It knows nothing of resdeploy. About three minutes on two CPU cores.

Images of 64 pixels instead of 224 leave the last feature map 2×2 pixels, which is enough for
one digit, and make training possible without a GPU. Pixels are normalized with ImageNet's mean
and standard deviation, so `resdeploy export` needs to be told the size and nothing else.
"""

import json
from pathlib import Path

import torch
from digits import CLASSES, IMAGE_PX, Part, digit_images
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import MobileNetV2

CHECKPOINT = Path(__file__).with_name("digits_mobilenet_v2.pth")
WIDTH_MULT = 0.25
EPOCHS = 20
BATCH = 64

PREPROCESS = transforms.Compose(
    [
        transforms.Grayscale(num_output_channels=3),
        transforms.Resize(IMAGE_PX),
        transforms.CenterCrop(IMAGE_PX),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)
# Handwriting leans, shifts and varies in size; it is never mirrored. Black is 0 before
# normalizing, so the pixels that move in from outside are background.
AUGMENT = transforms.RandomAffine(degrees=10, translate=(0.08, 0.08), scale=(0.9, 1.1), shear=8)


def make_model() -> MobileNetV2:
    """The network that the checkpoint's tensors belong to, with random weights."""
    return MobileNetV2(num_classes=len(CLASSES), width_mult=WIDTH_MULT)


def tensors(part: Part, *, augment: bool = False) -> tuple[Tensor, Tensor]:
    """One part of the digits as inputs (N, 3, 64, 64) float32 and class indices (N,) int64."""
    images = digit_images(part)
    inputs = [PREPROCESS(AUGMENT(image) if augment else image) for image, _ in images]
    return torch.stack(inputs), torch.tensor([label for _, label in images])


@torch.inference_mode()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy in percent."""
    model.eval()
    right = sum(
        int((model(batch).argmax(1) == truth).sum().item())
        for batch, truth in zip(inputs.split(BATCH), labels.split(BATCH), strict=True)
    )
    return 100 * right / len(labels)


def train(model: nn.Module) -> None:
    """AdamW with a one-cycle learning rate and light label smoothing."""
    steps = EPOCHS * -(-len(digit_images("train")) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(EPOCHS):
        model.train()
        inputs, labels = tensors("train", augment=True)
        total = 0.0
        for chosen in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            loss = loss_of(model(inputs[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
        print(f"epoch {epoch + 1:2d}/{EPOCHS}  loss {total / len(labels):.4f}", flush=True)


def main() -> None:
    torch.manual_seed(0)
    model = make_model()
    train(model)
    print(f"accuracy on the 360 test images: {accuracy(model, *tensors('test')):.2f} %")
    torch.save(model.state_dict(), CHECKPOINT)
    indices = {str(index): name for index, name in enumerate(CLASSES)}
    CHECKPOINT.with_name("class_indices.json").write_text(json.dumps(indices, indent=2) + "\n")


if __name__ == "__main__":
    main()
