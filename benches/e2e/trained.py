"""Builds `ferromq` as it is shipped, optimised for what brokers really do, and the wheel for what is done in Python.

    python benches/e2e/trained.py [--wheel] [--scale 1.0] [--cargo CARGO] [--maturin MATURIN] [--output FOLDER]

Builds the program with counters, has it serve each load of `make bench-peers` for a while, and builds it again by what
was counted (profile-guided optimisation). Needs `llvm-profdata` of the compiler's own version:
`rustup component add llvm-tools`. The program is OUTPUT/ferromq. With `--wheel` the same is done with the extension
module, which goes through `benches/python`; the wheel is in OUTPUT/wheels.
"""

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import brokers
import cells
from progress import show
from workloads import WORKLOADS, Workload

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "target" / "trained"
BUILD = ("build", "--release", "--no-default-features", "--features", "cli", "--bin", "ferromq")
TRAINING_SECONDS = 1.5
"""Of each load, at scale 1: what is counted is a share of all, so that more says the same."""
WHEEL_SCALE = 0.3
"""Of the numbers of messages of `make bench-python`, at scale 1."""


def main() -> None:
    """Build, train, build."""
    arguments = parse()
    merger = profdata()
    build, train, keep = WAYS["wheel" if arguments.wheel else "program"]
    counts = arguments.output / ("wheel-counts" if arguments.wheel else "counts")
    shutil.rmtree(counts, ignore_errors=True)
    counting = build(arguments, f"-Cprofile-generate={counts}", "counting")
    # Without what ran while building.
    shutil.rmtree(counts, ignore_errors=True)
    counts.mkdir(parents=True)
    train(counting, arguments.scale)
    raw = sorted(counts.glob("*.profraw"))
    if not raw:
        sys.exit(f"nothing was counted in {counts}: the build with counters was not what ran")
    merged = counts / "merged.profdata"
    subprocess.run([merger, "merge", "-o", merged, *raw], check=True)
    built = build(arguments, f"-Cprofile-use={merged}", "optimised")
    show("", 1.0)
    print(keep(built, arguments.output))


def environment(flags: str, folder: Path) -> dict[str, str]:
    """Of a build, with flags of the compiler and in a folder of its own."""
    show(f"build, {folder.name}", 0.0)
    # In this form a flag may have spaces, as a path in it may.
    known = os.environ.get("CARGO_ENCODED_RUSTFLAGS") or "\x1f".join(os.environ.get("RUSTFLAGS", "").split())
    encoded = "\x1f".join(filter(None, [known, flags]))
    return os.environ | {"CARGO_ENCODED_RUSTFLAGS": encoded, "CARGO_TARGET_DIR": str(folder)}


def build_program(arguments: argparse.Namespace, flags: str, name: str) -> Path:
    """The program."""
    folder: Path = arguments.output / name
    subprocess.run([*arguments.cargo.split(), *BUILD], cwd=ROOT, env=environment(flags, folder), check=True)
    return folder / "release" / "ferromq"


def build_wheel(arguments: argparse.Namespace, flags: str, name: str) -> Path:
    """A folder with the wheel, and with what is in it."""
    target: Path = arguments.output / f"wheel-{name}"
    folder = target / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    command = [arguments.maturin, "build", "--release", "--interpreter", sys.executable, "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, env=environment(flags, target), check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


def train_program(program: Path, scale: float) -> None:
    """Have the program serve, and make, all loads. It writes what it has counted when it ends."""
    command = brokers.ferromq(program)
    loads = cells.Loads(program)
    cells.descriptors()
    rows = [row for row in WORKLOADS if row.base == "mosquitto"]
    for number, row in enumerate(rows):
        show(f"training {number + 1}/{len(rows)} {row.title}", number / len(rows))
        found = cells.measure(row, command, loads, share(row, scale))
        if "error" in found:
            raise RuntimeError(f"{row.title}: {found['error']}")


def train_wheel(folder: Path, scale: float) -> None:
    """Have the extension module receive and publish all that is measured of it."""
    show("training", 0.5)
    what = ["--peers", "ferromq", "--runs", "1", "--scale", f"{WHEEL_SCALE * scale:g}", "--output", str(folder)]
    paths = os.environ | {"PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, ROOT / "benches" / "python", *what], cwd=folder, env=paths, check=True)


def keep_program(program: Path, output: Path) -> Path:
    """Where it is found."""
    return Path(shutil.copy2(program, output / "ferromq"))


def keep_wheel(built: Path, output: Path) -> Path:
    """The same of a wheel, and of no earlier one."""
    folder = output / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return Path(shutil.copy2(next(built.glob("*.whl")), folder))


WAYS = {"program": (build_program, train_program, keep_program), "wheel": (build_wheel, train_wheel, keep_wheel)}


def share(row: Workload, scale: float) -> float:
    """The scale at which a row takes as long as training should."""
    return scale * TRAINING_SECONDS / row.seconds if row.seconds else scale / 4


def profdata() -> str:
    """The tool that merges counts; that of another version may not know the format."""
    rustc = os.environ.get("RUSTC") or shutil.which("rustc") or sys.exit("rustc is missing; see https://rustup.rs")
    said = subprocess.run([rustc, "--print", "target-libdir"], capture_output=True, text=True, check=True)
    tool = Path(said.stdout.strip()).parent / "bin" / "llvm-profdata"
    if not tool.exists():
        sys.exit("llvm-profdata is missing; install it with: rustup component add llvm-tools")
    return str(tool)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benches/e2e/trained.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--wheel", action="store_true", help="the wheel, and not the program")
    parser.add_argument("--scale", type=float, default=1.0, help="of the time of training (default 1)")
    parser.add_argument("--cargo", default=os.environ.get("CARGO", "cargo"), help="builds the program (default cargo)")
    parser.add_argument("--maturin", default="maturin", help="builds the wheel (default maturin)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder (default target/trained)")
    arguments = parser.parse_args()
    # Programs with other working directories are told of it.
    arguments.output = arguments.output.resolve()
    return arguments


if __name__ == "__main__":
    main()
