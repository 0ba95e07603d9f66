"""A virtual environment for each peer: what one needs must not change another, nor Regraft.

A peer's requirements are in PEER.txt beside this file. An environment counts as made only once its
stamp, the hash of those requirements, is there; the stamp is written last, so an install that was
cut off is done again from nothing.

    python environments.py ROOT [PEER ...]

makes them under ROOT and prints their interpreters.
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = ("tutorial", "fastai", "hf")
SCRIPTS = {
    "tutorial": HERE / "tutorial.py",
    "fastai": HERE / "fastai_learner.py",
    "hf": HERE / "hf_trainer.py",
}
PYTHON_VERSION = "3.11"


def python_of(peer: str, root: Path) -> Path:
    """The interpreter of the peer's environment under root, made first where it is not there.

    Raises:
        ValueError: no such peer.
        subprocess.CalledProcessError: uv could not make it; its own words are on standard error.
    """
    if peer not in PEERS:
        raise ValueError(f"Expected a peer among {', '.join(PEERS)}, got {peer!r}.")
    requirements = HERE / f"{peer}.txt"
    environment = root.resolve() / peer
    python, stamp = environment / "bin" / "python", environment / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
        root.mkdir(parents=True, exist_ok=True)
        # --clear also takes away what an install that was cut off left behind, and the old stamp.
        _uv("venv", "--clear", "--python", PYTHON_VERSION, str(environment))
        # Compiled as pip would leave it, so that no first run pays for that.
        install = ["pip", "install", "--compile-bytecode", "--python", str(python)]
        _uv(*install, "--requirement", str(requirements))
        stamp.write_text(wanted)
    return python


def _uv(*arguments: str) -> None:
    command = [str(Path(sys.executable).parent / "uv"), *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("peers", nargs="*", default=PEERS)
    arguments = parser.parse_args()
    for peer in arguments.peers:
        print(peer, python_of(peer, arguments.root))


if __name__ == "__main__":
    main()
