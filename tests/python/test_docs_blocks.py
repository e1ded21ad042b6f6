"""What README and guides show is run: `docblocks.page` says how, `docblocks.parse` what orders there are."""

import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from docblocks import parse

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [page for page in parse.pages(ROOT) if parse.blocks(page)]

# What cannot be run, in all pages together. Each says why.
EXCUSED_MAX = 2


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory):
    """Runs of the pages that are asked for, two at a time: most of what they do is to wait for processes."""

    def run(page, folder):
        environment = os.environ | {"PYTHONPATH": str(ROOT / "tests" / "docs")}
        command = [sys.executable, "-m", "docblocks.page", page, folder]
        return subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=120, check=False, env=environment
        )

    items = [item for item in request.session.items if "page" in getattr(item, "fixturenames", ())]
    pages = [item.callspec.params["page"] for item in items if item.path == request.path]
    with ThreadPoolExecutor(2) as pool:
        yield {page: pool.submit(run, page, tmp_path_factory.mktemp(page.stem)) for page in pages}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_do_what_they_say(page, runs):
    done = runs[page].result()
    assert done.returncode == 0, done.stdout + done.stderr


def test_almost_nothing_is_excused_and_the_rest_says_why(record_property):
    blocks = [block for page in PAGES for block in parse.blocks(page)]
    excused = [block for block in blocks if block.excuse is not None]
    record_property("blocks", len(blocks))
    record_property("excused", len(excused))
    told = "\n".join(f"{block}: {block.excuse}" for block in excused)
    assert all(block.excuse for block in excused), told
    assert len(excused) <= EXCUSED_MAX, told
    assert len(blocks) > 100


def test_the_guide_to_fastapi_shows_the_example():
    example = (ROOT / "examples" / "python" / "fastapi_app.py").read_text(encoding="utf-8")
    shown = next(
        block.text for block in parse.blocks(ROOT / "docs" / "guides" / "fastapi.md") if block.file == "app.py"
    )
    assert example.endswith(shown)
