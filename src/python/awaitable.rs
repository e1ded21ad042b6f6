//! A Python type made by hand: an object that is its own awaitable, its own coroutine and, for streams, its own
//! asynchronous iterator.
//!
//! CPython resumes an awaitable through the slot `am_send` without raising `StopIteration`; PyO3 has no such slot, and
//! its `__next__` costs twice as much a message (`make bench-python`). The type has `send`, `throw` and `close`
//! too, so `asyncio.create_task` takes it for the coroutine it is.
#![allow(unsafe_code)] // PyO3 offers no safe way to fill `am_send`

use std::{
    ffi::{CStr, c_int, c_uint, c_void},
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use pyo3::{
    exceptions::{PyStopIteration, PyTypeError},
    ffi,
    panic::PanicException,
    prelude::*,
    sync::PyOnceLock,
    types::PyType,
};

/// What one turn of an awaitable came to; an exception is the `Err` beside it.
pub(crate) enum Step {
    /// It is done, with this result.
    Return(Py<PyAny>),
    /// It waits: a future that is not done, or `None` to give up one turn of the loop.
    Yield(Py<PyAny>),
}

/// What stands behind an awaitable object. Calls may come from several threads at once.
pub(crate) trait Awaitable: Send + Sync + Sized + 'static {
    /// Full name of the type.
    const NAME: &'static CStr;
    /// Its documentation.
    const DOC: &'static CStr;
    /// Whether it has `__aiter__` and `__anext__`.
    const IS_STREAM: bool;

    /// Where the type is kept.
    fn type_cell() -> &'static PyOnceLock<Py<PyType>>;

    /// The result, if it is there at once. Must not drop a `Py`: the path is too hot to register the thread with PyO3.
    fn ready<'py>(&self, py: Python<'py>) -> Option<PyResult<Bound<'py, PyAny>>>;

    /// One turn.
    fn step(&self, py: Python<'_>) -> PyResult<Step>;

    /// An exception is thrown in at the place that awaits: what is awaited may be forgotten.
    fn abandon(&self, py: Python<'_>);

    /// What `__anext__` gives for the object `slf`; itself, as a rule.
    fn next_awaitable(&self, slf: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Ok(slf.clone().unbind())
    }

    /// Shows every Python object that is held to the garbage collector. Must not block.
    fn traverse(&self, visit: &mut dyn FnMut(&Py<PyAny>) -> Result<(), c_int>) -> Result<(), c_int>;

    /// Lets go of them.
    fn clear(&self);
}

/// Makes an object of `value`.
pub(crate) fn new_object<T: Awaitable>(py: Python<'_>, value: T) -> PyResult<Bound<'_, PyAny>> {
    let class = type_object::<T>(py)?;
    // SAFETY: `class` was made by `make_type::<T>`, so the allocation has the size of `Object<T>`. It is tracked by the
    // collector already, but nothing runs between here and the write that follows.
    unsafe {
        let object = ffi::PyType_GenericAlloc(class.as_ptr().cast(), 0);
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        ptr::write(ptr::addr_of_mut!((*object.cast::<Object<T>>()).value), ManuallyDrop::new(value));
        Ok(Bound::from_owned_ptr(py, object))
    }
}

/// The Python type of `T`.
pub(crate) fn type_object<T: Awaitable>(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    T::type_cell().get_or_try_init(py, || make_type::<T>(py)).map(|class| class.bind(py))
}

#[repr(C)]
struct Object<T> {
    head: ffi::PyObject,
    value: ManuallyDrop<T>,
}

fn make_type<T: Awaitable>(py: Python<'_>) -> PyResult<Py<PyType>> {
    let methods: Box<[ffi::PyMethodDef]> = Box::new([
        method(c"send", send::<T>, ffi::METH_O, c"send($self, value, /)\n--\n\nResume, as event loops do."),
        method(c"throw", throw::<T>, ffi::METH_VARARGS, c"Raise an exception at the place that waits."),
        method(
            c"close",
            close::<T>,
            ffi::METH_NOARGS,
            c"close($self, /)\n--\n\nStop waiting; the work is given up if it can be.",
        ),
        method(c"__class_getitem__", ffi::Py_GenericAlias, ffi::METH_O | ffi::METH_CLASS, c"For annotations."),
        ffi::PyMethodDef::zeroed(),
    ]);
    let mut slots = vec![
        slot(ffi::Py_tp_doc, T::DOC.as_ptr() as *mut c_void),
        slot(ffi::Py_tp_new, refuse_new as ffi::newfunc as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc::<T> as ffi::destructor as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse::<T> as ffi::traverseproc as *mut c_void),
        slot(ffi::Py_tp_clear, clear::<T> as ffi::inquiry as *mut c_void),
        // CPython keeps pointing at the methods for as long as the type lives, which is for ever.
        slot(ffi::Py_tp_methods, Box::leak(methods).as_mut_ptr().cast()),
        slot(ffi::Py_tp_iter, itself as ffi::unaryfunc as *mut c_void),
        slot(ffi::Py_tp_iternext, iternext::<T> as ffi::iternextfunc as *mut c_void),
        slot(ffi::Py_am_await, itself as ffi::unaryfunc as *mut c_void),
        slot(ffi::Py_am_send, am_send::<T> as SendFunction as *mut c_void),
    ];
    if T::IS_STREAM {
        slots.push(slot(ffi::Py_am_aiter, itself as ffi::unaryfunc as *mut c_void));
        slots.push(slot(ffi::Py_am_anext, anext::<T> as ffi::unaryfunc as *mut c_void));
    }
    slots.push(slot(0, ptr::null_mut()));
    let mut spec = ffi::PyType_Spec {
        name: T::NAME.as_ptr(),
        basicsize: c_int::try_from(size_of::<Object<T>>()).expect("an object of a few hundred bytes"),
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_IMMUTABLETYPE) as c_uint,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: `spec` and its slots are complete and ended by a zero; CPython copies what it keeps, but for the methods,
    // which are leaked.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec))?.cast_into::<PyType>() }
        .map(Bound::unbind)
        .map_err(Into::into)
}

type SendFunction =
    unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject, *mut *mut ffi::PyObject) -> ffi::PySendResult;

fn slot(id: c_int, value: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot: id, pfunc: value }
}

fn method(name: &'static CStr, function: ffi::PyCFunction, flags: c_int, doc: &'static CStr) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: function },
        ml_flags: flags,
        ml_doc: doc.as_ptr(),
    }
}

/// The value behind an object.
///
/// # Safety
/// `object` must be a live object of `T`'s type, for as long as the reference is used.
unsafe fn value<'a, T: Awaitable>(object: *mut ffi::PyObject) -> &'a T {
    // SAFETY: the caller's promise; `value` is initialised from creation to deallocation.
    unsafe { &(*object.cast::<Object<T>>()).value }
}

/// Runs `body`; an exception is set and `on_error` returned, and a panic becomes a `PanicException`.
fn guarded<R>(py: Python<'_>, on_error: R, body: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    let error = match catch_unwind(AssertUnwindSafe(|| body(py))) {
        Ok(Ok(value)) => return value,
        Ok(Err(error)) => error,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            PanicException::new_err((text.unwrap_or_else(|| "a panic without a message".into()),))
        }
    };
    error.restore(py);
    on_error
}

unsafe extern "C" fn am_send<T: Awaitable>(
    slf: *mut ffi::PyObject,
    _value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: CPython calls a slot with the thread attached, a live `slf` of this type and a valid `result`.
    let (py, this, result) = unsafe { (Python::assume_attached(), value::<T>(slf), &mut *result) };
    *result = ptr::null_mut();
    guarded(py, ffi::PySendResult::PYGEN_ERROR, |py| {
        if let Some(value) = this.ready(py) {
            *result = value?.into_ptr();
            return Ok(ffi::PySendResult::PYGEN_RETURN);
        }
        // From here on `Py` values are dropped, so PyO3 must know that the thread is attached.
        Python::attach(|py| match this.step(py)? {
            Step::Return(value) => {
                *result = value.into_ptr();
                Ok(ffi::PySendResult::PYGEN_RETURN)
            }
            Step::Yield(value) => {
                *result = value.into_ptr();
                Ok(ffi::PySendResult::PYGEN_NEXT)
            }
        })
    })
}

/// Python 3.12 and later resume through this slot instead of `am_send`.
unsafe extern "C" fn iternext<T: Awaitable>(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as in `am_send`.
    let (py, this) = unsafe { (Python::assume_attached(), value::<T>(slf)) };
    guarded(py, ptr::null_mut(), |py| {
        if let Some(value) = this.ready(py) {
            return Err(PyStopIteration::new_err((value?.unbind(),)));
        }
        Python::attach(|py| match this.step(py)? {
            Step::Return(value) => Err(PyStopIteration::new_err((value,))),
            Step::Yield(value) => Ok(value.into_ptr()),
        })
    })
}

unsafe extern "C" fn send<T: Awaitable>(slf: *mut ffi::PyObject, _value: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a method is called as a slot is.
    unsafe { iternext::<T>(slf) }
}

unsafe extern "C" fn throw<T: Awaitable>(slf: *mut ffi::PyObject, args: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as in `am_send`; METH_VARARGS passes a tuple.
    let (py, this) = unsafe { (Python::assume_attached(), value::<T>(slf)) };
    guarded(py, ptr::null_mut(), |_| {
        Python::attach(|py| {
            this.abandon(py);
            // SAFETY: `args` is a borrowed tuple that lives for the call.
            let args = unsafe { Bound::from_borrowed_ptr(py, args) };
            Err(exception_from(&args)?)
        })
    })
}

unsafe extern "C" fn close<T: Awaitable>(slf: *mut ffi::PyObject, _none: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as in `am_send`.
    let (py, this) = unsafe { (Python::assume_attached(), value::<T>(slf)) };
    guarded(py, ptr::null_mut(), |_| {
        Python::attach(|py| {
            this.abandon(py);
            Ok(py.None().into_ptr())
        })
    })
}

/// `throw(exception)` and the older `throw(type, value=None, traceback=None)`.
fn exception_from(args: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let first = args.get_item(0).map_err(|_| PyTypeError::new_err("throw() takes an exception"))?;
    let second = args.get_item(1).ok().filter(|value| !value.is_none());
    let instance = match second {
        Some(value) if value.is_instance_of::<pyo3::exceptions::PyBaseException>() => value,
        Some(value) => first.call1((value,))?,
        None if first.is_instance_of::<PyType>() => first.call0()?,
        None => first,
    };
    Ok(PyErr::from_value(instance))
}

unsafe extern "C" fn itself(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `slf` is live and the thread attached.
    unsafe {
        ffi::Py_INCREF(slf);
    }
    slf
}

unsafe extern "C" fn anext<T: Awaitable>(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as in `am_send`; `slf` is borrowed for the call.
    let (py, this) = unsafe { (Python::assume_attached(), value::<T>(slf)) };
    guarded(py, ptr::null_mut(), |py| {
        // SAFETY: as above.
        let object = unsafe { Bound::from_borrowed_ptr(py, slf) };
        this.next_awaitable(&object).map(Py::into_ptr)
    })
}

unsafe extern "C" fn refuse_new(
    _class: *mut ffi::PyTypeObject,
    _args: *mut ffi::PyObject,
    _keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls a slot with the thread attached.
    let py = unsafe { Python::assume_attached() };
    PyTypeError::new_err("objects of this type are made by FerroMQ only").restore(py);
    ptr::null_mut()
}

unsafe extern "C" fn dealloc<T: Awaitable>(slf: *mut ffi::PyObject) {
    // SAFETY: the last reference is gone, so nothing else can reach the object. Instances of a heap type own a
    // reference to it. `tp_free` is the counterpart of `PyType_GenericAlloc`.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        let class = ffi::Py_TYPE(slf);
        // A panic must not cross into C; there is nobody to tell.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            Python::attach(|_| ManuallyDrop::drop(&mut (*slf.cast::<Object<T>>()).value));
        }));
        let free: ffi::freefunc = std::mem::transmute(ffi::PyType_GetSlot(class, ffi::Py_tp_free));
        free(slf.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn traverse<T: Awaitable>(slf: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector passes a live object and a visitor to be called with `arg`.
    unsafe {
        let status = visit(ffi::Py_TYPE(slf).cast(), arg);
        if status != 0 {
            return status;
        }
        let mut visit = |object: &Py<PyAny>| match visit(object.as_ptr(), arg) {
            0 => Ok(()),
            status => Err(status),
        };
        value::<T>(slf).traverse(&mut visit).err().unwrap_or(0)
    }
}

unsafe extern "C" fn clear<T: Awaitable>(slf: *mut ffi::PyObject) -> c_int {
    // SAFETY: the collector passes a live object, on an attached thread.
    let (py, this) = unsafe { (Python::assume_attached(), value::<T>(slf)) };
    guarded(py, -1, |_| {
        Python::attach(|_| this.clear());
        Ok(0)
    })
}
