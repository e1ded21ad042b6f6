"""What commands mean in a block of shell: `python commands.py NAME ARGUMENTS`.

`ferromq` is the real one, on the test's broker in place of port 1883, and for a short time where it would go on for
ever. What would install, build or start something is not run but checked: the target is in the Makefile, the package is
one that the project installs, the option exists.
"""

import itertools
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[3]
SECONDS_MAX = "10"

# What the block leaves out, as it would go on for ever: after how much it has shown what it does.
_CLIENTS: dict[str, list[str]] = {
    "pub": [],
    "rr": [],
    "replay": [],
    "sub": ["-C", "1", "-W", SECONDS_MAX],
    "record": ["-C", "3", "-W", SECONDS_MAX],
    "top": ["-C", "1", "--interval", "0.2"],
    "bench": ["--warmup", "0.1", "--quiet"],
}
_ENDS = frozenset({"-C", "--count", "-W", "--timeout", "-E", "--exit-after-subscribe"})


def ferromq(arguments: list[str]) -> int:
    """Run the command on the broker of the test."""
    port = os.environ["DOCS_PORT"]
    command, rest = arguments[0], arguments[1:]
    if command == "broker":
        return _broker(rest)
    if command in _CLIENTS:
        rest = [re.sub(r"//[\w.]+(:1883)?(?=/|$)", f"//127.0.0.1:{port}", word) for word in rest]
        if not {"-L", "--url", "-p", "--port", "--unix"} & set(rest):
            rest += ["-p", port]
        # These loads end by themselves.
        ends = command == "bench" and rest[0] in {"crowd", "retained"}
        if not _ENDS & set(rest) and not ends:
            rest += _CLIENTS[command]
        if command == "bench" and not ends:
            rest = _with("--seconds", "0.3", rest)
    return subprocess.run([_real(), command, *rest], check=False, timeout=30).returncode


def _with(option: str, value: str, arguments: list[str]) -> list[str]:
    """The arguments, with this value for the option."""
    if option not in arguments:
        return [*arguments, option, value]
    at = arguments.index(option)
    return [*arguments[: at + 1], value, *arguments[at + 2 :]]


def _broker(arguments: list[str]) -> int:
    """Check it, or start it on free ports, see that it is ready, and end it as Ctrl-C does."""
    if "--check" in arguments:
        return subprocess.run([_real(), "broker", *arguments], check=False, timeout=30).returncode
    words = [re.sub(r"^(tcp|ws)://[^/]*", r"\1://127.0.0.1:0", word) for word in arguments]
    words = [re.sub(r"^unix:///.*", f"unix://{Path.cwd()}/broker.sock", word) for word in words]
    if "--port" in words:
        words = _with("--port", "0", words)
    elif "--listen" not in words:
        words += ["--listen", "tcp://127.0.0.1:0"]
    with subprocess.Popen([_real(), "broker", *words], stdout=subprocess.PIPE, text=True) as broker:
        if broker.stdout is None:
            return 1
        for line in broker.stdout:
            print(line, end="", flush=True)
            if line.strip() == "ready":
                break
        broker.send_signal(signal.SIGINT)
        return broker.wait(timeout=30)


def _real() -> str:
    return str(Path(sys.executable).with_name("ferromq"))


def pip(arguments: list[str]) -> int:
    """Check that it installs what this project is, or what it is developed with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups, extras = project["dependency-groups"], project["project"]["optional-dependencies"]
    lines = [line for group in [*groups.values(), *extras.values()] for line in group if isinstance(line, str)]
    known = {re.split(r"[^\w-]", line)[0] for line in lines} | {"ferromq", *_TOOLS}
    if arguments.pop(0) != "install":
        return _complain("pip install is what is known")
    while arguments:
        word = arguments.pop(0)
        if word == "--group":
            if arguments.pop(0) not in groups:
                return _complain("no such group in pyproject.toml")
            continue
        name, _, extra = word.rstrip("]").partition("[")
        if name not in known or (extra and extra not in extras):
            return _complain(f"pip install {word}: not known to pyproject.toml")
    return 0


def make(arguments: list[str]) -> int:
    """Check that there are these targets and variables."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in arguments:
        name, assigned, _ = word.partition("=")
        line = rf"^{re.escape(name)}\b.*=" if assigned else rf"^{re.escape(name)}:"
        is_known = re.search(line, makefile, re.MULTILINE) or (assigned and f"$({name})" in makefile)
        if not is_known:
            return _complain(f"make {word}: it is not in the Makefile")
    return 0


def cargo(arguments: list[str]) -> int:
    """Check the subcommand, and that what it names exists."""
    command, *rest = arguments
    if command not in {"bench", "build", "test", "run", "doc", "add", "install"}:
        return _complain(f"cargo {command}: not known here")
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    examples = {example["name"] for example in manifest["example"]}
    known = {
        "--example": examples,
        "--features": manifest["features"],
        "--bench": {b["name"] for b in manifest["bench"]},
    }
    for option, value in itertools.pairwise(rest):
        if command != "add" and option in known and value not in known[option]:
            return _complain(f"{option} {value}: it is not in Cargo.toml")
    return 0


def pytest(arguments: list[str]) -> int:
    """Run it, with the broker of the test in place of one elsewhere."""
    broker = f"127.0.0.1:{os.environ['DOCS_PORT']}"
    words = [re.sub(r"(mqtt://)[\w.]+(:1883)?", rf"\g<1>{broker}", word) for word in arguments]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, check=False, timeout=60).returncode


def uvicorn(arguments: list[str]) -> int:
    """Check that there is the application; what it does has tests."""
    module, _, name = arguments[0].partition(":")
    if re.search(rf"^{name} = ", Path(f"{module}.py").read_text(encoding="utf-8"), re.MULTILINE):
        return 0
    return _complain(f"no {name} in {module}.py")


def _complain(what: str) -> int:
    print(what, file=sys.stderr)
    return 1


# What people have, or install, to use this project with.
_TOOLS = frozenset({"duckdb", "jupyterlab", "polars", "pandas", "pytest", "pytest-asyncio", "uvicorn", "fastapi"})

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "cargo": cargo,
    "ferromq": ferromq,
    "make": make,
    "pip": pip,
    "pytest": pytest,
    "uvicorn": uvicorn,
}

if __name__ == "__main__":
    sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
