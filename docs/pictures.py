"""Runs the example notebook, and keeps what its cells show as pictures for the guides: `make pictures`."""

import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbclient
import nbformat
from ferromq import _chart

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "notebook" / "telemetry.ipynb"

# What the cells show, by a line of their source, and the name of its picture.
PICTURES = {
    "temps = ferromq.collect(": "table.html",
    'duckdb.sql("""': "duckdb.html",
    "by_second.tail(4)": "polars.html",
    "figure.autofmt_xdate()": "plot.png",
    "recorded = ferromq.read(": "recorded.html",
    'groupby("device"': "pandas.html",
}


def execute(folder: Path) -> Any:  # noqa: ANN401 - a notebook has no type
    """The notebook, executed in this folder."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # While cells block the kernel's loop the chart does not move, so it is asked for what it would show now.
    at = next(number for number, cell in enumerate(notebook.cells) if cell.source.startswith("stop.set()"))
    notebook.cells.insert(at, nbformat.v4.new_code_cell("print(json.dumps(live.table().series(300)))"))
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    return notebook


def pictures(notebook: Any) -> dict[str, bytes]:  # noqa: ANN401
    """What it shows, by name."""
    found = {}
    for cell in notebook.cells:
        shown = {kind: data for output in cell.get("outputs", []) for kind, data in output.get("data", {}).items()}
        for line, name in PICTURES.items():
            if cell.cell_type != "code" or line not in cell.source:
                continue
            if name.endswith(".png"):
                found[name] = base64.b64decode(shown["image/png"])
            else:
                # Blank lines would end HTML in Markdown.
                found[name] = without_blank_lines(shown["text/html"])
    found["live.html"] = chart(notebook)
    return found


def chart(notebook: Any) -> bytes:  # noqa: ANN401
    """The chart of `live`: the widget's own script, which draws it in the reader's browser."""
    lines, headline = json.loads(next(cell.outputs[0].text for cell in notebook.cells if ".series(" in cell.source))
    data = json.dumps({"headline": headline, "lines": json.dumps(lines)}).replace("</", "<\\/")
    model = "{ get: (name) => data[name], on() {}, off() {} }"
    drawing = f'const data = {data};\nrender({{ model: {model}, el: document.getElementById("ferromq-live") }});'
    script = _chart._SCRIPT.replace("export default { render };", drawing)  # noqa: SLF001 - there is no other use
    style = f"<style>{_chart._STYLE}</style>"  # noqa: SLF001
    return without_blank_lines(
        f'<div id="ferromq-live" class="ferromq-chart"></div>\n{style}\n<script type="module">\n{script}\n</script>'
    )


def without_blank_lines(html: str) -> bytes:
    """It can stand in Markdown then, where a blank line would end it."""
    return ("\n".join(line for line in html.splitlines() if line.strip()) + "\n").encode()


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in pictures(execute(Path(temporary))).items():
            (target / name).write_bytes(content)
