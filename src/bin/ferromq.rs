//! The `ferromq` command; all of it is in [`ferromq::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ferromq::cli::main_from_env()
}
