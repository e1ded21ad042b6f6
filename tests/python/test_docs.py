"""The documentation in the stub is there at run time, too: for `help()`, and for `?` in notebooks."""

import ast
import inspect
import pathlib
import re

import ferromq
import pytest
from ferromq import _ferromq, testing

STUB = ast.parse(pathlib.Path(ferromq.__file__).with_name("_ferromq.pyi").read_text(encoding="utf-8"))


def documented():
    """Everything public in the stub, with its documentation; of overloads the last has it."""
    found = {}
    for node in STUB.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or node.name.startswith("_"):
            continue
        found[node.name] = ast.get_docstring(node)
        if isinstance(node, ast.ClassDef):
            members = (member for member in node.body if isinstance(member, ast.FunctionDef))
            found |= {f"{node.name}.{m.name}": ast.get_docstring(m) for m in members if not m.name.startswith("_")}
    return found


def look_up(name):
    owner, _, member = name.partition(".")
    found = getattr(_ferromq, owner)
    return inspect.getattr_static(found, member) if member else found


@pytest.mark.parametrize(("name", "documentation"), documented().items())
def test_the_documentation_is_that_of_the_stub(name, documentation):
    assert documentation
    assert inspect.cleandoc(look_up(name).__doc__) == documentation


def test_help_shows_the_signature_with_its_defaults():
    signatures = {name: str(inspect.signature(getattr(ferromq, name))) for name in ("Client", "SyncClient", "Session")}
    assert "version=5" in signatures["Client"]
    assert "reconnect=True" in signatures["SyncClient"]
    assert "expiry=inf" in signatures["Session"]
    for name in documented():
        if callable(found := look_up(name)) and not inspect.isclass(found):
            assert "Ellipsis" not in (found.__text_signature__ or "")
    for name, signature in signatures.items():
        assert "Ellipsis" not in signature, name
        assert "..." not in signature, name


def test_everything_public_can_be_imported_from_the_package():
    public = {name for name in documented() if "." not in name} - {"cli_main"}
    assert public <= set(ferromq.__all__)


def test_everything_public_is_in_the_reference():
    pages = (pathlib.Path(__file__).parents[2] / "docs" / "api").glob("*.md")
    shown = {name for page in pages for name in re.findall(r"^::: ([\w.]+)$", page.read_text("utf-8"), re.MULTILINE)}
    public = {f"ferromq.{name}" for name in ferromq.__all__} | {f"ferromq.testing.{name}" for name in testing.__all__}
    assert public - {"ferromq.__version__"} <= shown
