//! The console script's way into the command line, which is the same as that of the cargo binary.

use pyo3::prelude::*;

/// Run the `ferromq` command; the first argument is its name. Its exit code.
#[pyfunction]
pub(crate) fn cli_main(py: Python<'_>, arguments: Vec<std::ffi::OsString>) -> u8 {
    py.detach(|| crate::cli::main(arguments))
}
