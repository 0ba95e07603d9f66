"""When a step's earlier result may be used again.

ZenML's own cache key sees a step's inputs and its few lines, not the core below them. Each policy
adds a hash of the packages that can change the step's result, and of no others: a change of the
status page recomputes nothing.
"""

import hashlib
from functools import cache
from pathlib import Path

from zenml.config import CachePolicy

import regraft

CORE = Path(regraft.__file__).parent
# Paths below it, in the order of the layers.
DATA = ("core", "data")
MODEL = (*DATA, "model")
TRAINING = (*MODEL, "stats", "training")
EVALUATION = (*TRAINING, "evaluation")
REGISTRY = (*EVALUATION, "drift", "registry")
START = (*REGISTRY, "operations/retrain/start.py")


@cache
def code_hash(places: tuple[str, ...]) -> str:
    """Return the sha256 of the source below some places of the core, templates included.

    Args:
        places: paths of files or folders, relative to regraft/.
    """
    digest = hashlib.sha256()
    for place in places:
        path = CORE / place
        files = [path] if path.is_file() else sorted(path.rglob("*.*"))
        for file in files:
            if file.suffix != ".pyc":
                name = file.relative_to(CORE).as_posix()
                digest.update(name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def data_code() -> str:
    """Return the hash of the code that reads and splits photos."""
    return code_hash(DATA)


def model_code() -> str:
    """Return the hash of the code that makes networks, and of what it reads."""
    return code_hash(MODEL)


def training_code() -> str:
    """Return the hash of the code that trains, and of what it rests on."""
    return code_hash(TRAINING)


def evaluation_code() -> str:
    """Return the hash of the code that evaluates, and of what it rests on."""
    return code_hash(EVALUATION)


def registry_code() -> str:
    """Return the hash of the code that reads the registry, and of what it rests on."""
    return code_hash(REGISTRY)


def start_code() -> str:
    """Return the hash of the code that chooses where a retraining starts."""
    return code_hash(START)


FOLLOW_DATA = CachePolicy(cache_func=data_code)
FOLLOW_MODEL = CachePolicy(cache_func=model_code)
FOLLOW_TRAINING = CachePolicy(cache_func=training_code)
FOLLOW_EVALUATION = CachePolicy(cache_func=evaluation_code)
FOLLOW_REGISTRY = CachePolicy(cache_func=registry_code)
FOLLOW_START = CachePolicy(cache_func=start_code)
