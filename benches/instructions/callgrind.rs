//! This program under callgrind, and what callgrind wrote.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// What a case takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    /// Instructions of this program's own code.
    pub(crate) instructions: u64,
    pub(crate) allocations: u64,
}

/// Counts each case once.
pub(crate) fn measure() -> Result<BTreeMap<String, Count>, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--compress-strings=no", "--compress-pos=no"])
        .args(["--toggle-collect", "--dump-after"].map(|option| format!("{option}=instructions::callgrind_measured")))
        .arg(format!("--callgrind-out-file={}/out", directory.path().display()))
        .arg(&program)
        .arg("--child")
        // What else is in the environment should not matter; so it is not there.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .output()
        .map_err(|error| {
            format!("valgrind cannot be started ({error}); install it with: sudo apt-get install valgrind")
        })?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("valgrind failed:\n{said}{}", String::from_utf8_lossy(&output.stderr)));
    }
    let mut counts = BTreeMap::new();
    for (part, line) in (1..).zip(said.lines()) {
        let (name, allocations) = line.split_once('\t').ok_or_else(|| format!("a case said {line:?}"))?;
        let path = directory.path().join(format!("out.{part}"));
        let dump = fs::read_to_string(&path).map_err(|error| format!("no counts of {name:?}: {error}"))?;
        let instructions = own_instructions(&dump, &program);
        if instructions == 0 {
            return Err(format!("callgrind has counted nothing in {name:?}"));
        }
        let allocations = allocations.parse().map_err(|_| format!("a case said {line:?}"))?;
        counts.insert(name.to_owned(), Count { instructions, allocations });
    }
    Ok(counts)
}

/// The sum over all functions of `program`, without what they call elsewhere. The format is described in valgrind's manual:
/// `ob=` says whose the cost lines are that follow, and the line after `calls=` is of what was called.
fn own_instructions(dump: &str, program: &Path) -> u64 {
    let program = program.display().to_string();
    let (mut is_own, mut is_of_call, mut sum) = (false, false, 0);
    for line in dump.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_own = object == program;
        } else if line.starts_with("calls=") {
            is_of_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            if is_own && !is_of_call {
                sum += line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or_default();
            }
            is_of_call = false;
        }
    }
    sum
}
