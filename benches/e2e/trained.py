"""Builds `ferromq` as it is shipped: optimised for what brokers really do.

    python benches/e2e/trained.py [--scale 1.0] [--cargo CARGO] [--output FOLDER]

Builds the program with counters, has it serve each load of `make bench-peers` for a while, and builds it again by what
was counted (profile-guided optimisation). Needs `llvm-profdata` of the compiler's own version:
`rustup component add llvm-tools`. The program is OUTPUT/ferromq.
"""

import argparse
import os
import shutil
import subprocess
import sys
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


def main() -> None:
    """Build, train, build."""
    arguments = parse()
    merger = profdata()
    counts = arguments.output / "counts"
    shutil.rmtree(counts, ignore_errors=True)
    counts.mkdir(parents=True)
    counting = build(arguments, f"-Cprofile-generate={counts}", "counting")
    train(counting, counts, arguments.scale)
    merged = arguments.output / "merged.profdata"
    raw = sorted(counts.glob("*.profraw"))
    subprocess.run([merger, "merge", "-o", merged, *raw], check=True)
    program = build(arguments, f"-Cprofile-use={merged}", "optimised")
    shutil.copy2(program, arguments.output / "ferromq")
    show("", 1.0)
    print(arguments.output / "ferromq")


def build(arguments: argparse.Namespace, flags: str, name: str) -> Path:
    """The program, built with flags of the compiler, in a folder of its own."""
    show(f"build, {name}", 0.0)
    folder: Path = arguments.output / name
    flags = f"{os.environ.get('RUSTFLAGS', '')} {flags}".strip()
    environment = os.environ | {"RUSTFLAGS": flags, "CARGO_TARGET_DIR": str(folder)}
    subprocess.run([*arguments.cargo.split(), *BUILD], cwd=ROOT, env=environment, check=True)
    return folder / "release" / "ferromq"


def train(program: Path, counts: Path, scale: float) -> None:
    """Have the program serve, and make, all loads. It writes what it has counted when it ends."""
    for early in counts.iterdir():
        # From what ran while building.
        early.unlink()
    command = brokers.ferromq(program)
    loads = cells.Loads(program)
    cells.descriptors()
    rows = [row for row in WORKLOADS if row.base == "mosquitto"]
    for number, row in enumerate(rows):
        show(f"training {number + 1}/{len(rows)} {row.title}", number / len(rows))
        found = cells.measure(row, command, loads, share(row, scale))
        if "error" in found:
            raise RuntimeError(f"{row.title}: {found['error']}")


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
    parser = argparse.ArgumentParser(prog="benches/e2e/trained.py", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the time of training (default 1)")
    parser.add_argument("--cargo", default=os.environ.get("CARGO", "cargo"), help="the command (default cargo)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder (default target/trained)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
