//! Memory of a Rust object as a Python buffer, without a copy.
#![allow(unsafe_code)] // the buffer protocol is made of raw pointers

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use pyo3::{exceptions::PyBufferError, ffi, prelude::*};

/// Fills `view` with `bytes`, read-only, on behalf of `owner`.
///
/// # Safety
/// `view` is to be filled as `bf_getbuffer` is; `bytes` do not change and live at least as long as `owner`.
pub(crate) unsafe fn fill(
    owner: Bound<'_, PyAny>,
    bytes: *const [u8],
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    if view.is_null() {
        return Err(PyBufferError::new_err("no view to fill"));
    }
    let length = isize::try_from(bytes.len()).expect("a slice is no longer than isize::MAX");
    // SAFETY: the caller's promise. `PyBuffer_FillInfo` takes its own reference to `owner`, which keeps `bytes` alive
    // for as long as the view, and refuses a writable request.
    let status = unsafe {
        (*view).obj = ptr::null_mut();
        ffi::PyBuffer_FillInfo(view, owner.as_ptr(), bytes.cast::<c_void>().cast_mut(), length, 1, flags)
    };
    if status == 0 { Ok(()) } else { Err(PyErr::fetch(owner.py())) }
}
