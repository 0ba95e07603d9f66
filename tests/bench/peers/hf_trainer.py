"""Hugging Face's Trainer on its wrapper of timm's tf_efficientnet_lite0.

In the style of the image-classification example of transformers: RandomResizedCrop and flip for
training, Resize and CenterCrop otherwise, AdamW with a linearly falling rate from 5e-5 (the
Trainer's own defaults), evaluation after each epoch, fp32. As there, the Trainer's train mode also
moves the BatchNorm statistics of layers that are frozen.

More favourable to the peer than its default:
    probe at a rate of 1e-3: at 5e-5 a new classifier hardly learns on few photos. The other
    policies keep 5e-5, from which a short run may suffer too: see --learning-rate;
    batches of 32, not 8 (--batch-size), and 2 loader workers, not 0 (--workers);
    no checkpoints, no trackers, no model card: the weights of the last epoch are tested;
    photos by torchvision's ImageFolder, without a copy of them in the datasets library;
    mean/std 0.5, bicubic, 256 to 224, as these weights were trained. For wrapped timm models the
    example takes timm's own training transforms: the same, and colour jitter, which costs time.
The configuration is made here, so nothing is asked of the hub.
"""

import argparse
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2 as transforms
from torchvision.transforms.functional import InterpolationMode
from transformers import (
    EvalPrediction,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

ARCHITECTURE = "tf_efficientnet_lite0"
BICUBIC = InterpolationMode.BICUBIC
TRAINED = {
    "probe": ("classifier.",),
    "last_block": ("blocks.6.", "conv_head.", "bn2.", "classifier."),
    "all": ("",),
}
LEARNING_RATES = {"probe": 1e-3, "last_block": 5e-5, "all": 5e-5}


def main() -> None:
    arguments = parse()
    set_seed(arguments.seed)
    datasets = read_photos(arguments.photos)
    model = build(arguments.weights, datasets["train"].classes, arguments.policy)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=training_arguments(arguments, folder),
            train_dataset=datasets["train"],
            eval_dataset=datasets["validation"],
            data_collator=collate,
            compute_metrics=measure,
        )
        start = time.perf_counter()
        trainer.train()
        training_s = time.perf_counter() - start
        tested = trainer.predict(datasets["test"])
    n_correct = int((tested.predictions.argmax(1) == tested.label_ids).sum())
    names = ("transformers", "accelerate", "torch", "torchvision", "timm")
    result = {
        "peer": "hf",
        "policy": arguments.policy,
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "training_s": training_s,
        "test_accuracy": n_correct / len(datasets["test"]),
        "n_test": len(tested.label_ids),
        "n_train": len(datasets["train"]),
        "settings": {
            "batch_size": arguments.batch_size,
            "learning_rate": trainer.args.learning_rate,
            "workers": arguments.workers,
        },
        "versions": {name: version(name) for name in names},
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
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, help="default: by the policy")
    return parser.parse_args()


def training_arguments(arguments: argparse.Namespace, folder: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=arguments.epochs,
        learning_rate=arguments.learning_rate or LEARNING_RATES[arguments.policy],
        per_device_train_batch_size=arguments.batch_size,
        per_device_eval_batch_size=arguments.batch_size,
        dataloader_num_workers=arguments.workers,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        seed=arguments.seed,
        use_cpu=True,
    )


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
    stages = {"train": augment, "validation": centre, "test": centre}
    datasets = {
        side: ImageFolder(folder / side, transforms.Compose(stage + to_tensor))
        for side, stage in stages.items()
    }
    for side, dataset in datasets.items():
        if dataset.classes != datasets["train"].classes:
            raise ValueError(f"Expected the classes of train in {side}, got {dataset.classes}.")
    return datasets


def build(weights: Path, classes: list[str], policy: str) -> TimmWrapperForImageClassification:
    """The network with the given weights, a new classifier, and the policy's layers thawed."""
    config = TimmWrapperConfig(
        architecture=ARCHITECTURE,
        id2label=dict(enumerate(classes)),
        label2id={name: index for index, name in enumerate(classes)},
    )
    model = TimmWrapperForImageClassification(config)
    network = model.timm_model
    # The file names its tensors otherwise than timm, but holds them in timm's order.
    tensors = torch.load(weights, map_location="cpu", weights_only=True).values()
    named = dict(zip(network.state_dict(), tensors, strict=True))
    kept = {name: tensor for name, tensor in named.items() if not name.startswith("classifier.")}
    network.load_state_dict(kept, strict=False)
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.startswith(TRAINED[policy])
    return model


def collate(photos: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    images, labels = zip(*photos, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


def measure(prediction: EvalPrediction) -> dict[str, float]:
    correct = prediction.predictions.argmax(1) == prediction.label_ids
    return {"accuracy": float(np.mean(correct))}


if __name__ == "__main__":
    main()
