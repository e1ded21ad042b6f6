//! Instructions and allocations of the codec, the router, the delivery path and the client's machine: the same numbers on
//! every run, so that a regression of a few per cent shows where times would drown it.
//!
//! Runs itself under valgrind's callgrind, which counts the instructions of this program's own code in each case. What the
//! C library does (copying, the inside of `malloc`) is left out, since it picks its code by the processor; allocations are
//! counted instead. `instructions.json` holds the baseline: more than 5 % above it fails.
//!
//! `make bench-instructions`, or `cargo bench --bench instructions --no-default-features -- [--save] [--repeat]`; `cargo test`
//! runs each case once and compares nothing.

#[path = "../world/mod.rs"]
mod world;

mod baseline;
mod callgrind;
mod cases;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    process::ExitCode,
};

use baseline::Baseline;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if has("--child") || !has("--bench") {
        // Under callgrind, or in a test: one line for each case.
        cases::run(|name, allocations| println!("{name}\t{allocations}"));
        return ExitCode::SUCCESS;
    }
    match measure_and_compare(has("--save"), has("--repeat")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing is worse than the baseline allows.
fn measure_and_compare(saves: bool, repeats: bool) -> Result<bool, String> {
    let counts = callgrind::measure()?;
    if repeats {
        let again = callgrind::measure()?;
        for (name, count) in &counts {
            let difference = again.get(name).map(|other| count.instructions.abs_diff(other.instructions));
            println!("{name}: {} instructions between two runs", difference.unwrap_or_default());
            // What time it is decides over a carry here and there.
            if difference.is_none_or(|difference| difference > count.instructions / 10_000) {
                return Err(format!("two runs of {name:?} differ by {difference:?} instructions"));
            }
        }
    }
    if saves {
        Baseline::save(&counts)?;
        println!("{} cases written to {}", counts.len(), baseline::PATH);
        return Ok(true);
    }
    Baseline::load()?.compare(&counts)
}

/// Runs `work` so that callgrind knows where it begins and ends; how many allocations it made.
#[inline(never)]
fn callgrind_measured(work: &mut dyn FnMut()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts allocations.
struct Counting;

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system allocator unchanged; only a counter is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
