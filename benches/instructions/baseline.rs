//! The committed numbers, and what became of them.

use std::{collections::BTreeMap, env, fmt::Write, fs, process::Command};

use super::callgrind::Count;

/// Where the baseline is.
pub(crate) const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/instructions.json");

/// Numbers of an earlier version, by case.
#[derive(Debug)]
pub(crate) struct Baseline {
    /// What it was compiled with: another compiler makes other instructions of the same code.
    compiler: String,
    counts: BTreeMap<String, Count>,
}

impl Baseline {
    /// Reads what [`Self::save`] has written: one case a line.
    pub(crate) fn load() -> Result<Self, String> {
        let text = fs::read_to_string(PATH).map_err(|error| format!("{PATH}: {error}"))?;
        let lines = text.lines().filter(|line| line.contains("instructions"));
        let counts = lines
            .map(|line| parse(line).ok_or_else(|| format!("{PATH}: what is {line:?}?")))
            .collect::<Result<_, _>>()?;
        let compiler =
            text.lines().find_map(|line| line.trim().strip_prefix(COMPILER)?.strip_suffix("\",")).unwrap_or_default();
        Ok(Self { compiler: compiler.to_owned(), counts })
    }

    pub(crate) fn save(counts: &BTreeMap<String, Count>) -> Result<(), String> {
        let mut text = format!("{{\n  {COMPILER}{}\",\n", compiler()?);
        for (at, (name, Count { instructions, allocations })) in counts.iter().enumerate() {
            let comma = if at + 1 < counts.len() { "," } else { "" };
            let _ = writeln!(
                text,
                "  \"{name}\": {{ \"instructions\": {instructions}, \"allocations\": {allocations} }}{comma}"
            );
        }
        text.push_str("}\n");
        fs::write(PATH, text).map_err(|error| format!("{PATH}: {error}"))
    }

    /// Prints every case; whether none is more than the tolerance above the baseline.
    pub(crate) fn compare(&self, counts: &BTreeMap<String, Count>) -> Result<bool, String> {
        println!("{:<52} {:>13} {:>8} {:>12} {:>5}", "case", "instructions", "change", "allocations", "");
        let (mut worse, mut better) = (Vec::new(), Vec::new());
        for (name, count) in counts {
            let Some(before) = self.counts.get(name) else {
                return Err(format!("{name:?} is not in the baseline; {RENEW}"));
            };
            let change = percent(count.instructions, before.instructions);
            let more = count.allocations.cast_signed() - before.allocations.cast_signed();
            println!("{name:<52} {:>13} {change:>+7.1}% {:>12} {more:>+5}", count.instructions, count.allocations);
            let allocates_more = percent(count.allocations, before.allocations) > TOLERANCE_PERCENT;
            if change > TOLERANCE_PERCENT || allocates_more {
                worse.push(format!(
                    "{name}: {} instructions, {change:+.1} % against the baseline of {}; {} allocations, {more:+}",
                    count.instructions, before.instructions, count.allocations
                ));
            } else if change < -TOLERANCE_PERCENT {
                better.push(name.as_str());
            }
        }
        if let Some(gone) = self.counts.keys().find(|name| !counts.contains_key(*name)) {
            return Err(format!("the case {gone:?} of the baseline is gone; {RENEW}"));
        }
        if !better.is_empty() {
            println!("\nmore than {TOLERANCE_PERCENT} % better: {}; to keep it so, {RENEW}", better.join(", "));
        }
        if worse.is_empty() {
            return Ok(true);
        }
        let compiler = compiler()?;
        if compiler != self.compiler {
            eprintln!("\nnot judged, as the baseline is of {:?} and this is {compiler:?}; {RENEW}", self.compiler);
            return Ok(true);
        }
        eprintln!("\nmore than {TOLERANCE_PERCENT} % worse than the baseline:\n  {}", worse.join("\n  "));
        eprintln!("If that is the price of something, {RENEW}");
        Ok(false)
    }
}

/// The compiler that cargo uses here.
fn compiler() -> Result<String, String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output =
        Command::new(&rustc).arg("--version").output().map_err(|error| format!("{}: {error}", rustc.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `  "name": { "instructions": 1, "allocations": 2 },`
fn parse(line: &str) -> Option<(String, Count)> {
    let (name, rest) = line.trim().strip_prefix('"')?.split_once("\": ")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()).map(str::parse);
    let (instructions, allocations) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((name.to_owned(), Count { instructions, allocations }))
}

fn percent(now: u64, before: u64) -> f64 {
    match (now, before) {
        (0, 0) => 0.0,
        (_, 0) => f64::INFINITY,
        _ => (now as f64 / before as f64 - 1.0) * 100.0,
    }
}

/// What a case may cost more than the baseline says.
const TOLERANCE_PERCENT: f64 = 5.0;

const COMPILER: &str = "\"compiler\": \"";

const RENEW: &str = "renew the baseline with `make bench-instructions-save` and commit it with the reason.";
