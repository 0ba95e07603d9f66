"""regraft demo: a whole training on the photos of the package elpv-dataset."""

import json
from importlib.util import find_spec
from pathlib import Path

import typer

from regraft.cli.options import DEFAULT_STATE, StateOption
from regraft.cli.session import new_state
from regraft.cli.train import run_training
from regraft.core.config import Config, load_config
from regraft.core.errors import NoPhotos

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"
LABELS = {"0.0": "functional", "1.0": "defective"}  # cells of doubtful label are left out


def demo(state: StateOption = DEFAULT_STATE) -> None:
    """Train on functional and defective solar cells; 2223 photos, licence CC BY-NC-SA 4.0."""
    package = find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise NoPhotos(
            "The demo's photos are not installed: pip install 'regraft[demo]' (elpv-dataset, "
            "licence CC BY-NC-SA 4.0, not for commercial use)."
        )
    new_state(state)  # a place that cannot hold one is refused before the manifest is written
    typer.echo("Photos: elpv-dataset, electroluminescence of solar cells, CC BY-NC-SA 4.0.")
    data = Path(package.origin).parent / "data"
    manifest = write_manifest(data, state)
    run_training(demo_config(data), str(manifest), "solar-cells", state)


def demo_config(data: Path) -> Config:
    """Return the demo's configuration, with which its manifest may name photos of the package."""
    return load_config(CONFIG, (f"ingest.roots={json.dumps([str(data)])}",))


def write_manifest(data: Path, state: Path) -> Path:
    """Write a manifest image,label,cell of the cells whose label is certain; return its path."""
    lines = ["image,label,cell"]
    for row in (data / "labels.csv").read_text(encoding="utf-8").splitlines():
        image, probability, cell = row.split()
        if probability in LABELS:
            lines.append(f'"{data / image}",{LABELS[probability]},{cell}')
    manifest = state / "demo" / "solar-cells.csv"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest
