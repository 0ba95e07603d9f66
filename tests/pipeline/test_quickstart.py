"""The notebook of the documentation runs, and its stored output is that of a run."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

DOCS = Path(__file__).parents[2] / "docs"


def outputs(notebook) -> list[str]:
    """The text of each code cell's last output, "" where it has none."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            results = [one for one in cell.outputs if one.output_type == "execute_result"]
            texts.append(results[-1]["data"]["text/plain"] if results else "")
    return texts


def test_the_notebook_runs_and_shows_what_it_stores(tmp_path):
    stored = nbformat.read(DOCS / "quickstart.ipynb", as_version=4)
    fresh = nbformat.read(DOCS / "quickstart.ipynb", as_version=4)
    NotebookClient(fresh, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert not [cell for cell in fresh.cells if cell.get("execution_count") == 0]
    assert [bool(text) for text in outputs(fresh)] == [bool(text) for text in outputs(stored)]
    assert outputs(fresh)[-3:-1] != ["", ""]
    assert "skip" in "".join(outputs(fresh))
    assert "digits/2" in "".join(outputs(fresh))
    errors = [
        out for cell in fresh.cells for out in cell.get("outputs", []) if out.output_type == "error"
    ]
    assert errors == []
