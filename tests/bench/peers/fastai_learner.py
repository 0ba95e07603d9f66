"""fastai's vision_learner on tf_efficientnet_lite0 of timm, as its own documents use it.

As there: ImageDataLoaders.from_folder, Resize(224) and aug_transforms(), batches of 64 whose last
incomplete one is left out in training, its own head (two linear layers with BatchNorm and dropout
on concatenated pools), Adam under one-cycle at its default rates, as many loader workers as cores,
BatchNorm of the frozen body still trained (train_bn).

    probe       fit_one_cycle(epochs) with the body frozen, at the default lr of 0.001
    all         fine_tune(epochs): one epoch frozen, THEN epochs unfrozen, so epochs + 1 in all
    last_block  as fine_tune, epochs + 1 in all, but freeze_to(-2) in place of unfreeze, on three
                groups: stem and blocks 0-5; block 6, conv_head and bn2; the head. The rates are
                fine_tune's, spread over three groups: 1e-4 for the middle one, 1e-3 for the head.

More favourable to the peer than its default: nothing. mean/std are 0.5, as these weights were
trained: fastai takes the same from timm where timm fetches the weights. Resizing stays fastai's:
bilinear, the centre square of the whole photo. The seed is set, the device is the CPU. Since the
last incomplete batch is left out, fewer than 64 training photos need a smaller --batch-size.
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import torch
from fastai.vision.all import (
    ImageDataLoaders,
    L,
    Learner,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    get_image_files,
    params,
    set_seed,
    vision_learner,
)
from torch import nn

ARCHITECTURE = "tf_efficientnet_lite0"
LR = 2e-3  # fine_tune's default, before it halves it for the second phase


def main() -> None:
    arguments = parse()
    set_seed(arguments.seed)
    loaders = ImageDataLoaders.from_folder(
        arguments.photos,
        train="train",
        valid="validation",
        item_tfms=Resize(224),
        batch_tfms=[*aug_transforms(), Normalize.from_stats([0.5] * 3, [0.5] * 3, cuda=False)],
        bs=arguments.batch_size,
        device=torch.device("cpu"),
    )
    learner = build(loaders, arguments.weights, arguments.policy)

    start = time.perf_counter()
    train(learner, arguments.policy, arguments.epochs)
    training_s = time.perf_counter() - start

    photos = get_image_files(arguments.photos / "test")
    probs, labels = learner.get_preds(dl=loaders.test_dl(photos, with_labels=True))
    n_correct = int((probs.argmax(1) == labels).sum())
    result = {
        "peer": "fastai",
        "policy": arguments.policy,
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "training_s": training_s,
        "test_accuracy": n_correct / len(photos),
        "n_test": len(labels),
        "n_train": len(loaders.train_ds),
        "settings": {"batch_size": arguments.batch_size},
        "versions": {name: version(name) for name in ("fastai", "torch", "torchvision", "timm")},
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--policy", choices=("probe", "last_block", "all"), required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=64)
    return parser.parse_args()


def build(loaders: ImageDataLoaders, weights: Path, policy: str) -> Learner:
    """A learner with the given weights in its body, frozen as a pretrained one is."""
    groups = {"splitter": split_last_block} if policy == "last_block" else {}
    # pretrained=True would fetch timm's weights from the hub; these here are loaded instead.
    learner = vision_learner(loaders, ARCHITECTURE, pretrained=False, metrics=accuracy, **groups)
    body = learner.model[0].model
    # The file names its tensors otherwise than timm, but holds them in timm's order; its last two
    # are the old classifier's, which fastai's body lacks.
    tensors = list(torch.load(weights, map_location="cpu", weights_only=True).values())[:-2]
    body.load_state_dict(dict(zip(body.state_dict(), tensors, strict=True)))
    learner.freeze()
    return learner


def split_last_block(model: nn.Sequential) -> L:
    """The parameters in three groups, input side first."""
    body = model[0].model
    early = nn.ModuleList([body.conv_stem, body.bn1, *body.blocks[:6]])
    last = nn.ModuleList([body.blocks[6], body.conv_head, body.bn2])
    return L(early, last, model[1]).map(params)


def train(learner: Learner, policy: str, n_epochs: int) -> None:
    if policy == "probe":
        learner.fit_one_cycle(n_epochs)
    elif policy == "all":
        learner.fine_tune(n_epochs)
    else:
        learner.fit_one_cycle(1, slice(LR), pct_start=0.99)
        learner.freeze_to(-2)
        learner.fit_one_cycle(n_epochs, slice(LR / 200, LR / 2), pct_start=0.3, div=5.0)


if __name__ == "__main__":
    main()
