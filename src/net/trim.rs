//! Gives memory back to the system after a burst.
//!
//! The C library's allocator keeps what is freed in the middle of its heap for the next who asks, for ever: without this, a
//! broker that once had a million clients would look as if it still had them.

/// Gives back what is free. Takes milliseconds, so not for a shard's thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub(crate) fn trim() {
    // SAFETY: `malloc_trim` may be called at any time by any thread; it takes the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do so by themselves, or cannot.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim() {}
