//! Simulation: several clients and a broker of one to four shards in one thread, under virtual time.
//!
//! A seed decides everything: settings, clients, delays, how byte streams are split, where connections break, what is
//! reordered between connections. Both ends are the real ones, `ClientSession` and `broker::Shard`; only the shell is
//! simulated. After each run the network heals, everything settles, and the invariants of [`ledger`] and [`finish`]
//! must hold: no acknowledged message is lost, QoS 2 comes once, order is kept, nothing leaks.
//!
//! A run that fails prints its trace and the command that replays it:
//!
//! ```text
//! SEED=123 PROFILE=narrow cargo test --test sim replay -- --nocapture
//! ```
//!
//! `SEEDS=100000 cargo test --test sim` looks further than a plain run does.

mod actor;
mod finish;
mod ledger;
mod network;
mod plan;
mod rng;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{plan::Profile, world::World};

#[test]
fn plain_runs_hold_their_invariants_1() {
    run_seeds(Profile::Plain, 0);
}

#[test]
fn plain_runs_hold_their_invariants_2() {
    run_seeds(Profile::Plain, 1);
}

#[test]
fn narrow_runs_hold_their_invariants() {
    run_seeds(Profile::Narrow, 0);
}

#[test]
fn lossy_runs_count_what_they_lose() {
    run_seeds(Profile::Lossy, 0);
}

/// A run depends on its seed and on nothing else, or no failure could be replayed.
#[test]
fn a_seed_repeats_its_run_exactly() {
    for seed in 0..5 {
        let traces = [(); 2].map(|()| {
            let mut world = World::new(Profile::Plain, seed, true);
            let _ = finish::run(&mut world, Profile::Plain);
            world.trace().to_vec()
        });
        let differs = traces[0].iter().zip(&traces[1]).position(|(one, two)| one != two);
        assert_eq!(differs, None, "seed {seed}: {:?}", differs.map(|at| (&traces[0][at], &traces[1][at])));
        assert_eq!(traces[0].len(), traces[1].len());
    }
}

/// The runs do what the invariants are about: a simulation in which nothing happens finds nothing.
#[test]
fn runs_give_the_invariants_something_to_bite_on() {
    for profile in [Profile::Plain, Profile::Narrow, Profile::Lossy] {
        let harvests = (0..40).map(|seed| {
            let mut world = World::new(profile, seed, false);
            let _ = finish::run(&mut world, profile);
            world.harvest()
        });
        let sum = harvests.fold([0; 8], |sum, harvest| {
            let of = [
                harvest.promised,
                harvest.repeated,
                harvest.exactly_once,
                harvest.shared,
                harvest.retained,
                harvest.wills,
                harvest.takeovers,
                harvest.expired,
            ];
            std::array::from_fn(|at| sum[at] + of[at])
        });
        println!("{profile:?}: {sum:?}");
        assert!(sum[0] > 1_000 && sum.iter().all(|count| *count > 0), "{profile:?}: {sum:?}");
    }
}

/// Runs the seed that the environment names, and prints what happens in it.
#[test]
fn replay() {
    let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) else { return };
    let profile = match std::env::var("PROFILE").as_deref() {
        Ok("narrow") => Profile::Narrow,
        Ok("lossy") => Profile::Lossy,
        _ => Profile::Plain,
    };
    if let Err(fault) = run_seed(profile, seed, true) {
        panic!("seed {seed}: {fault}");
    }
}

/// Runs the seeds of one part of the whole, and replays the first that fails.
fn run_seeds(profile: Profile, part: u64) {
    let count = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let seeds = part * count..(part + 1) * count;
    let failed: Vec<(u64, String)> =
        seeds.clone().filter_map(|seed| run_seed(profile, seed, false).err().map(|fault| (seed, fault))).collect();
    let Some((seed, _)) = failed.first() else { return };
    let _ = run_seed(profile, *seed, true);
    for (seed, fault) in &failed {
        let name = format!("{profile:?}").to_lowercase();
        println!("SEED={seed} PROFILE={name} cargo test --test sim replay -- --nocapture\n    {fault}");
    }
    panic!("{} of {} seeds failed", failed.len(), seeds.count());
}

fn run_seed(profile: Profile, seed: u64, traced: bool) -> Result<(), String> {
    let mut world = World::new(profile, seed, traced);
    let result = catch_unwind(AssertUnwindSafe(|| finish::run(&mut world, profile)))
        .unwrap_or_else(|panic| Err(format!("panic: {:?}", panic.downcast_ref::<String>())));
    world.trace().iter().for_each(|line| println!("{line}"));
    result
}

/// Seeds of each test, unless the environment names another number; together they take less than a minute of one core.
const SEEDS: u64 = 600;
