"""The notebooks are examples that people copy, so each is run from the first cell to the last."""

import pathlib
import runpy

import pytest

pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[2] / "examples" / "notebook").glob("*.ipynb"))

DOCS = pathlib.Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_notebook_runs_to_its_end(path, tmp_path):
    pictures = runpy.run_path(str(DOCS / "pictures.py"))
    assert path == pictures["NOTEBOOK"]
    notebook = pictures["execute"](tmp_path)
    shown = {kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert {"text/html", "image/png", "application/vnd.jupyter.widget-view+json"} <= shown
    made = pictures["pictures"](notebook)
    assert made.keys() == {path.name for path in (DOCS / "pictures").iterdir()}, "make pictures"
    guide = (DOCS / "guides" / "telemetry.md").read_text(encoding="utf-8")
    assert all(f"pictures/{name}" in guide for name in made)
    assert made["plot.png"].startswith(b"\x89PNG")
    assert b"machine/core0/load" in made["live.html"]


def test_there_is_a_notebook():
    assert NOTEBOOKS
