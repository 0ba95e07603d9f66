"""The notebook of the documentation runs, and what it stores is what a run shows."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"


def outputs(path: Path) -> list[str]:
    """The text of each code cell's result, "" where it has none."""
    texts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            results = [each for each in cell.outputs if each.output_type == "execute_result"]
            texts.append(results[-1]["data"]["text/plain"] if results else "")
    return texts


def test_the_notebook_runs_and_shows_what_it_stores(shell, tmp_path):
    copy = shutil.copy(NOTEBOOK, tmp_path)
    command = [Path(sys.executable).parent / "jupyter-execute", "--inplace", copy]
    variables = {**shell, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    pipes = {"capture_output": True, "text": True, "timeout": 900}
    done = subprocess.run(command, cwd=tmp_path, env=variables, check=False, **pipes)
    assert done.returncode == 0, done.stderr[-3000:]
    stored, shown = outputs(NOTEBOOK), outputs(Path(copy))
    assert [bool(text) for text in shown] == [bool(text) for text in stored]
    assert sum(map(bool, stored)) == 7
    assert shown[1].startswith("digits/1: ")
    assert shown[5] == stored[5] == "'skip'"  # an unchanged folder is no reason to retrain
    assert "distribution shift" in shown[-1]
