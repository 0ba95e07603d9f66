"""The loop that PyTorch's transfer-learning tutorial teaches, on tf_efficientnet_lite0 of timm.

As there: phases train and val in each epoch, the weights of the best validation accuracy kept and
put back at the end, SGD (lr 0.001, momentum 0.9), StepLR(7, 0.1), RandomResizedCrop and flip for
training, Resize(256) and CenterCrop(224) otherwise, batches of 4, fp32. As there too, train() also
moves the BatchNorm statistics of layers that are frozen.

More favourable to the peer than its default:
    2 loader workers, not 4: one a core of the machine that it is meant for (--workers);
    bicubic resizing and mean/std 0.5, as these weights were trained, not bilinear and ImageNet's;
    the optimizer is given only what is trained, and the best weights stay in memory, not on disk.
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, StepLR
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2 as transforms
from torchvision.transforms.functional import InterpolationMode

ARCHITECTURE = "tf_efficientnet_lite0"
BICUBIC = InterpolationMode.BICUBIC
TRAINED = {
    "probe": ("classifier.",),
    "last_block": ("blocks.6.", "conv_head.", "bn2.", "classifier."),
    "all": ("",),
}


def main() -> None:
    arguments = parse()
    torch.manual_seed(arguments.seed)
    datasets = read_photos(arguments.photos)
    loaders = {
        phase: DataLoader(
            dataset,
            batch_size=arguments.batch_size,
            shuffle=phase == "train",
            num_workers=arguments.workers,
        )
        for phase, dataset in datasets.items()
    }
    network = build(arguments.weights, len(datasets["train"].classes), arguments.policy)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=arguments.learning_rate, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=7, gamma=0.1)

    start = time.perf_counter()
    train_model(network, loaders, optimizer, scheduler, arguments.epochs)
    training_s = time.perf_counter() - start

    n_correct = count_correct(network, loaders["test"])
    result = {
        "peer": "tutorial",
        "policy": arguments.policy,
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "training_s": training_s,
        "test_accuracy": n_correct / len(datasets["test"]),
        "n_test": len(datasets["test"]),
        "n_train": len(datasets["train"]),
        "settings": {
            "batch_size": arguments.batch_size,
            "learning_rate": arguments.learning_rate,
            "workers": arguments.workers,
        },
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm")},
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--policy", choices=tuple(TRAINED), required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def read_photos(folder: Path) -> dict[str, ImageFolder]:
    """The three sides, all with the same classes in the same order."""
    to_tensor = [
        transforms.ToImage(),
        transforms.ToDtype(torch.float32, scale=True),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ]
    augment = [
        transforms.RandomResizedCrop(224, interpolation=BICUBIC),
        transforms.RandomHorizontalFlip(),
    ]
    centre = [transforms.Resize(256, interpolation=BICUBIC), transforms.CenterCrop(224)]
    datasets = {
        "train": ImageFolder(folder / "train", transforms.Compose(augment + to_tensor)),
        "val": ImageFolder(folder / "validation", transforms.Compose(centre + to_tensor)),
        "test": ImageFolder(folder / "test", transforms.Compose(centre + to_tensor)),
    }
    for phase, dataset in datasets.items():
        if dataset.classes != datasets["train"].classes:
            raise ValueError(f"Expected the classes of train in {phase}, got {dataset.classes}.")
    return datasets


def build(weights: Path, n_classes: int, policy: str) -> nn.Module:
    """The network with the given weights, a new classifier, and the policy's layers thawed."""
    network = timm.create_model(ARCHITECTURE)
    # The file names its tensors otherwise than timm, but holds them in timm's order.
    tensors = torch.load(weights, map_location="cpu", weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    # As the tutorial does it. timm's own new classifier would start with far larger weights.
    network.classifier = nn.Linear(network.num_features, n_classes)
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.startswith(TRAINED[policy])
    return network


def train_model(
    network: nn.Module,
    loaders: dict[str, DataLoader],
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    n_epochs: int,
) -> None:
    """Trains, and leaves the network with the weights of its best validation accuracy."""
    best_accuracy, best_state = -1.0, copy_of(network)
    for epoch in range(n_epochs):
        for phase in ("train", "val"):
            loss, accuracy = run_epoch(network, loaders[phase], optimizer, phase == "train")
            print(f"epoch {epoch + 1}/{n_epochs} {phase:5} loss {loss:.4f} accuracy {accuracy:.4f}")
        scheduler.step()
        if accuracy > best_accuracy:  # of val, the last phase
            best_accuracy, best_state = accuracy, copy_of(network)
    network.load_state_dict(best_state)


def run_epoch(
    network: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, training: bool
) -> tuple[float, float]:
    """The mean loss and the accuracy over the loader's photos."""
    network.train(training)
    loss_sum, n_correct = 0.0, 0
    for images, labels in loader:
        optimizer.zero_grad()
        with torch.set_grad_enabled(training):
            logits = network(images)  # (B, K)
            loss = nn.functional.cross_entropy(logits, labels)
            if training:
                loss.backward()
                optimizer.step()
        loss_sum += loss.item() * len(labels)
        n_correct += int((logits.argmax(1) == labels).sum())
    return loss_sum / len(loader.dataset), n_correct / len(loader.dataset)


def copy_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@torch.no_grad()
def count_correct(network: nn.Module, loader: DataLoader) -> int:
    network.eval()
    return sum(int((network(images).argmax(1) == labels).sum()) for images, labels in loader)


if __name__ == "__main__":
    main()
