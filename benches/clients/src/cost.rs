//! What a piece of work took.

use std::{
    mem::MaybeUninit,
    time::{Duration, Instant},
};

/// A piece of work under way.
pub struct Cost {
    began: Instant,
    used: Duration,
}

impl Cost {
    pub fn begin() -> Self {
        Self { began: Instant::now(), used: used() }
    }

    /// Prints it.
    pub fn report(&self, count: u64) {
        let (cpu, wall) = ((used() - self.used).as_nanos(), self.began.elapsed().as_nanos());
        println!("{{\"count\": {count}, \"cpu_ns\": {cpu}, \"wall_ns\": {wall}}}");
    }
}

/// Processor time of all threads of this process.
fn used() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a `rusage`, which the call fills; all zeros are a valid one, too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}
