//! The rules of the house that no compiler checks: who may import whom, how long files and functions may grow, and
//! what the sans-IO core must never touch. Each failure prints `file:line` and the rule.
//!
//! Sources are judged by their text with comments, literals and test-only items blanked out, so that a word in a
//! comment is free and line numbers stay true.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Lowest first: a module may use what its row names, and a row may name only rows above it, so there are no cycles.
/// An entry is a module, or a path of which everything below it may be used. `error` is for every shell.
const MAY_USE: &[(&str, &[&str])] = &[
    ("codec", &[]),
    ("session", &["codec"]),
    ("router", &["codec::topic", "codec::text", "codec::TopicFilter", "codec::TopicName", "codec::SharedFilter"]),
    ("auth", &["codec", "session::snapshot"]),
    ("store", &["codec", "session::snapshot"]),
    ("broker", &["codec", "session", "router", "auth", "store"]),
    ("config", &["codec", "router", "auth", "broker"]),
    ("clock", &[]),
    ("net", &["codec", "router", "auth", "broker", "config", "clock"]),
    ("client", &["codec", "session", "router::trie", "router::FilterTrie", "net", "config", "clock"]),
    ("faults", &["codec", "broker", "clock", "net", "client"]),
    ("telemetry", &["codec", "client"]),
    ("observe", &["broker", "config"]),
    (
        "server",
        &[
            "codec", "session", "router", "auth", "store", "broker", "net", "config", "client", "observe", "clock",
            "faults",
        ],
    ),
    ("bench", &["codec", "session::client", "session::QueueLimits"]),
    (
        "cli",
        &[
            "codec",
            "auth",
            "broker",
            "net::listener",
            "net::tls",
            "config",
            "client",
            "server",
            "observe",
            "bench",
            "telemetry",
        ],
    ),
    (
        "python",
        &[
            "codec",
            "session::QueueLimits",        // part of the broker's settings
            "session::client::PublishAck", // what a publish ended with
            "auth",
            "broker",
            "net::listener",
            "net::tls",
            "config",
            "client",
            "clock",
            "faults",
            "server",
            "telemetry",
            "cli",
        ],
    ),
    ("bin", &["cli"]),
];

/// Shells may name the crate's own error type, which knows everything below it.
const ERROR: &str = "error";

/// The files in which time and seeds are arguments and no operating system is asked for anything.
const CORE: &[&str] = &["codec/", "session/", "router/", "broker/", "store/mod.rs", "store/memory.rs"];
const CORE_AUTH: &[&str] = &["auth/mod.rs", "auth/acl.rs", "auth/password.rs"];

/// Words banned there, each with what to do instead.
const BANNED_IN_CORE: &[(&str, &str)] = &[
    ("Instant::now", "time is an argument"),
    ("SystemTime::now", "time is an argument"),
    (".elapsed(", "reads the clock; subtract from the `now` that was given"),
    ("tokio", "async lives in the shells"),
    ("mio", "readiness lives in net"),
    ("std::fs", "files live in the shells"),
    ("std::env", "configuration is an argument"),
    ("std::thread", "threads live in the shells"),
    ("thread::sleep", "time is an argument"),
    ("rand", "seeds are arguments"),
    ("getrandom", "seeds are arguments"),
    ("RandomState", "hash seeds are arguments"),
    ("HashMap::new", "seeds itself at random; use with_hasher"),
    ("HashSet::new", "seeds itself at random; use with_hasher"),
    ("DashMap::new", "seeds itself at random; use with_hasher"),
];

/// Of `std::net` the core may use the types that merely name a peer.
const NET_NAMES: &[&str] = &["SocketAddr", "SocketAddrV4", "SocketAddrV6", "IpAddr", "Ipv4Addr", "Ipv6Addr"];

/// Left unfinished by its author; banned everywhere, tests included.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!"];

/// A file beyond this has a second room in it.
const FILE_LINES_MAX: usize = 800;
/// A function beyond this cannot be seen at once.
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn modules_import_only_what_the_table_allows() {
    let mut faults = Faults::default();
    for file in sources() {
        let Some(module) = file.module() else { continue };
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            faults.add(&file, 0, &format!("module `{module}` has no row in the table of tests/architecture.rs"));
            continue;
        };
        for (offset, path) in crate_paths(&file) {
            let target = path.split("::").next().unwrap_or_default();
            let own = target == module || target == ERROR || !MAY_USE.iter().any(|(name, _)| *name == target);
            if !own && !allowed.iter().any(|entry| covers(entry, &path)) {
                faults.add(&file, offset, &format!("`{module}` may not use `{path}`"));
            }
        }
    }
    faults.check();
}

#[test]
fn the_table_itself_has_no_upward_row() {
    for (row, (module, allowed)) in MAY_USE.iter().enumerate() {
        for entry in *allowed {
            let target = entry.split("::").next().unwrap_or_default();
            let lower = MAY_USE[..row].iter().any(|(name, _)| *name == target);
            assert!(lower, "`{module}` names `{entry}`, which stands in no row above it");
        }
    }
}

#[test]
fn the_core_has_no_clock_no_randomness_and_no_operating_system() {
    let mut faults = Faults::default();
    for file in sources().iter().filter(|file| file.is_core()) {
        for (word, instead) in BANNED_IN_CORE {
            for offset in occurrences(&file.code, word) {
                faults.add(file, offset, &format!("`{word}` in the core: {instead}"));
            }
        }
        for (offset, name) in net_names(&file.code) {
            if !NET_NAMES.contains(&name.as_str()) {
                faults.add(file, offset, &format!("`std::net::{name}` in the core: sockets live in net"));
            }
        }
    }
    faults.check();
}

#[test]
fn files_and_functions_stay_small_enough_to_read() {
    let mut faults = Faults::default();
    for file in sources() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            faults.add(&file, 0, &format!("{lines} lines; the cap is {FILE_LINES_MAX}"));
        }
        for function in functions(&file.code) {
            if function.lines > FUNCTION_LINES_MAX {
                let Function { name, lines, .. } = &function;
                faults.add(
                    &file,
                    function.offset,
                    &format!("fn {name}: {lines} lines; the cap is {FUNCTION_LINES_MAX}"),
                );
            }
        }
    }
    faults.check();
}

#[test]
fn nothing_is_left_unfinished() {
    let mut faults = Faults::default();
    for file in all_sources() {
        for word in UNFINISHED {
            for offset in occurrences(&blank_literals(&file.text), word) {
                faults.add(&file, offset, &format!("`{word}`"));
            }
        }
    }
    faults.check();
}

/// One file under src.
struct Source {
    /// Relative to src, with `/`.
    path: String,
    text: String,
    /// `text` with comments, literals and test-only items blanked, byte for byte as long.
    code: String,
}

impl Source {
    /// The row of the table that the file falls under; none for lib.rs, which only lists the modules.
    fn module(&self) -> Option<&str> {
        let first = self.path.split('/').next()?;
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (module != "lib" && module != ERROR).then_some(module)
    }

    /// How many `super` lead from this file to the root of the crate.
    fn depth(&self) -> usize {
        let segments = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { segments - 1 } else { segments }
    }

    fn is_core(&self) -> bool {
        CORE.iter().any(|prefix| self.path.starts_with(prefix)) || CORE_AUTH.contains(&self.path.as_str())
    }
}

/// Collects what is wrong, so that one run shows all of it.
#[derive(Default)]
struct Faults(String);

impl Faults {
    fn add(&mut self, file: &Source, offset: usize, what: &str) {
        let line = 1 + file.text[..offset].matches('\n').count();
        writeln!(self.0, "src/{}:{line}: {what}", file.path).expect("writing to a String cannot fail");
    }

    fn check(&self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

/// Every file that is part of the product; files reached only through `#[cfg(test)] mod name;` are not.
fn sources() -> Vec<Source> {
    let all = all_sources();
    let test_only: BTreeSet<String> = all.iter().flat_map(test_modules).collect();
    let is_test = |path: &str| {
        test_only.iter().any(|module| path == format!("{module}.rs") || path.starts_with(&format!("{module}/")))
    };
    all.into_iter().filter(|file| !is_test(&file.path)).collect()
}

fn all_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(!files.is_empty(), "no sources under {}", root.display());
    files.iter().map(|file| read(&root, file)).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(root: &Path, file: &Path) -> Source {
    let relative = file.strip_prefix(root).expect("collected below the root");
    let path = relative.to_str().expect("file names are UTF-8").replace('\\', "/");
    let text = fs::read_to_string(file).expect("sources are UTF-8");
    let code = blank_test_items(&blank_literals(&text));
    Source { path, text, code }
}

/// The files that `#[cfg(test)] mod name;` in this file brings in, without `.rs`.
fn test_modules(file: &Source) -> Vec<String> {
    let code = blank_literals(&file.text);
    let directory = match file.path.rsplit_once('/') {
        Some((parent, "mod.rs")) => format!("{parent}/"),
        _ if file.path == "lib.rs" => String::new(),
        _ => format!("{}/", file.path.trim_end_matches(".rs")),
    };
    test_items(&code)
        .filter_map(|(start, end)| {
            let item = code[start..end].split(']').next_back()?.trim();
            let name = item.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?.trim();
            Some(format!("{directory}{name}"))
        })
        .collect()
}

/// Every path that starts at the root of the crate, as `module::item`, with the offset where it stands.
fn crate_paths(file: &Source) -> Vec<(usize, String)> {
    let root_by_super = "super::".repeat(file.depth());
    let mut paths = Vec::new();
    for root in ["crate::", "ferromq::", root_by_super.as_str()] {
        for offset in occurrences(&file.code, root) {
            let one_super_less = file.code[..offset].ends_with("super::");
            if !one_super_less {
                expand(&file.code, offset + root.len(), "", &mut paths);
            }
        }
    }
    paths
}

/// Reads the path or `{group}` at `at`, adding each leaf; returns where it ends.
fn expand(code: &str, at: usize, prefix: &str, paths: &mut Vec<(usize, String)>) -> usize {
    let mut cursor = at + blanks(&code[at..]);
    if code[cursor..].starts_with('{') {
        cursor += 1;
        loop {
            cursor += blanks(&code[cursor..]);
            match code[cursor..].chars().next() {
                Some(',') => cursor += 1,
                Some('}') => return cursor + 1,
                Some(first) if first == '*' || identifier(&code[cursor..]) > 0 => {
                    cursor = expand(code, cursor, prefix, paths);
                }
                _ => return cursor,
            }
        }
    }
    let length = if code[cursor..].starts_with('*') { 1 } else { identifier(&code[cursor..]) };
    let name = &code[cursor..cursor + length];
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    let end = cursor + length;
    if code[end..].starts_with("::") {
        return expand(code, end + 2, &path, paths);
    }
    paths.push((cursor, path));
    let gap = blanks(&code[end..]);
    if code[end + gap..].starts_with("as ") {
        let alias = end + gap + 3;
        return alias + identifier(&code[alias..]);
    }
    end
}

/// Whether `entry` of the table allows `path`.
fn covers(entry: &str, path: &str) -> bool {
    path == entry || path.strip_prefix(entry).is_some_and(|rest| rest.starts_with("::"))
}

/// What the code names below `std::net::`.
fn net_names(code: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for offset in occurrences(code, "std::net") {
        let after = offset + "std::net".len();
        if code[after..].starts_with("::") {
            expand(code, after + 2, "", &mut names);
        } else {
            names.push((offset, "*".to_owned()));
        }
    }
    // `use std::{net::..}`: the path starts inside the group.
    for offset in occurrences(code, "std::{") {
        let mut leaves = Vec::new();
        expand(code, offset + "std::".len(), "", &mut leaves);
        names.extend(leaves.into_iter().filter_map(|(at, path)| Some((at, path.strip_prefix("net::")?.to_owned()))));
    }
    names.into_iter().map(|(at, path)| (at, path.split("::").next().unwrap_or_default().to_owned())).collect()
}

struct Function {
    offset: usize,
    name: String,
    lines: usize,
}

/// Every function with a body, nested ones too.
fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for offset in occurrences(code, "fn") {
        let name_at = offset + 2 + blanks(&code[offset + 2..]);
        let name_length = identifier(&code[name_at..]);
        if name_length == 0 {
            continue; // a function pointer type
        }
        let Some(body) = body_start(code, name_at + name_length) else { continue };
        let end = matching_brace(code, body);
        let lines = code[offset..end].lines().count();
        found.push(Function { offset, name: code[name_at..name_at + name_length].to_owned(), lines });
    }
    found
}

/// The `{` that opens the body of a signature; none when it ends in `;`.
fn body_start(code: &str, from: usize) -> Option<usize> {
    let mut nesting = 0_i32;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => nesting += 1,
            b')' | b']' => nesting -= 1,
            b'{' if nesting == 0 => return Some(at),
            b';' if nesting == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The offset after the `}` that closes the `{` at `open`.
fn matching_brace(code: &str, open: usize) -> usize {
    let mut nesting = 0_i32;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => nesting += 1,
            b'}' => {
                nesting -= 1;
                if nesting == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Where `word` stands as a word of its own, wherever it begins or ends with a letter.
fn occurrences(code: &str, word: &str) -> Vec<usize> {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = code.as_bytes();
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| {
            let before = at.checked_sub(1).and_then(|before| bytes.get(before));
            let after = bytes.get(at + word.len());
            let (first, last) = (word.as_bytes().first(), word.as_bytes().last());
            let is_longer = (is_word(first) && is_word(before)) || (is_word(last) && is_word(after));
            !is_longer
        })
        .collect()
}

fn blanks(code: &str) -> usize {
    code.len() - code.trim_start().len()
}

fn identifier(code: &str) -> usize {
    code.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
}

/// Blanks the items that only tests compile.
fn blank_test_items(code: &str) -> String {
    let mut blanked = code.as_bytes().to_vec();
    for (start, end) in test_items(code) {
        blank(&mut blanked, start, end);
    }
    String::from_utf8(blanked).expect("only ASCII was overwritten, over whole characters")
}

/// The ranges of items under `#[cfg(test)]`, attribute included.
fn test_items(code: &str) -> impl Iterator<Item = (usize, usize)> + '_ {
    code.match_indices("#[cfg(test)]").map(|(start, attribute)| {
        let after = start + attribute.len();
        let rest = code[after..].bytes();
        let mut nesting = 0_i32;
        for (at, byte) in rest.enumerate() {
            match byte {
                b'(' | b'[' => nesting += 1,
                b')' | b']' => nesting -= 1,
                b';' if nesting == 0 => return (start, after + at + 1),
                b'{' if nesting == 0 => return (start, matching_brace(code, after + at)),
                _ => {}
            }
        }
        (start, code.len())
    })
}

/// Blanks comments, strings and character literals; newlines stay.
fn blank_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut blanked = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if raw_hashes(bytes, at).is_some() => raw_string_end(bytes, at),
            b'\'' => character_end(bytes, at),
            _ => at,
        };
        if end > at {
            blank(&mut blanked, at, end);
        }
        at = end.max(at + 1);
    }
    String::from_utf8(blanked).expect("only ASCII was overwritten, over whole characters")
}

fn blank(bytes: &mut [u8], start: usize, end: usize) {
    for byte in &mut bytes[start..end] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

/// Block comments nest.
fn comment_end(bytes: &[u8], at: usize) -> usize {
    let mut nesting = 0_u32;
    let mut cursor = at;
    while cursor < bytes.len() {
        if bytes[cursor..].starts_with(b"/*") {
            nesting += 1;
            cursor += 2;
        } else if bytes[cursor..].starts_with(b"*/") {
            nesting -= 1;
            cursor += 2;
            if nesting == 0 {
                return cursor;
            }
        } else {
            cursor += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut cursor = at + 1;
    while cursor < bytes.len() {
        match bytes[cursor] {
            b'\\' => cursor += 2,
            b'"' => return cursor + 1,
            _ => cursor += 1,
        }
    }
    bytes.len()
}

/// The number of `#` of a raw string that starts at this `r`, or at the `r` of `br` and `cr`.
fn raw_hashes(bytes: &[u8], at: usize) -> Option<usize> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let prefix = at.checked_sub(1).map(|before| &bytes[before]).filter(|byte| is_word(byte));
    let prefixed =
        matches!(prefix, Some(b'b' | b'c')) && !at.checked_sub(2).is_some_and(|before| is_word(&bytes[before]));
    if prefix.is_some() && !prefixed {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    (bytes.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

fn raw_string_end(bytes: &[u8], at: usize) -> usize {
    let hashes = raw_hashes(bytes, at).unwrap_or_default();
    let close = [b"\"".as_slice(), "#".repeat(hashes).as_bytes()].concat();
    let body = at + hashes + 2;
    bytes[body..]
        .windows(close.len())
        .position(|window| window == close)
        .map_or(bytes.len(), |length| body + length + close.len())
}

/// The end of a character literal, or `at` when the quote begins a lifetime.
fn character_end(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at + 1) {
        Some(b'\\') => {
            // The escaped character may itself be a quote, so the search starts after it.
            let close = bytes[(at + 3).min(bytes.len())..].iter().position(|byte| *byte == b'\'');
            close.map_or(bytes.len(), |length| at + 3 + length + 1)
        }
        Some(first) => {
            let width = match first {
                0x00..=0x7f => 1,
                0x80..=0xdf => 2,
                0xe0..=0xef => 3,
                _ => 4,
            };
            if bytes.get(at + 1 + width) == Some(&b'\'') { at + width + 2 } else { at }
        }
        None => at,
    }
}

mod scanner_tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned(), code: blank_test_items(&blank_literals(text)) }
    }

    fn paths(path: &str, text: &str) -> Vec<String> {
        crate_paths(&source(path, text)).into_iter().map(|(_, path)| path).collect()
    }

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let code = blank_literals("a /* x /* y */ z */ b // c\n'\\'' \"d\\\"e\" r#\"f\"g\"# br\"h\" 'i' &'j k 'ü'");
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "b", "b", "&'j", "k"]);
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn test_items_are_blanked_and_their_neighbours_are_not() {
        let code =
            blank_test_items("fn a() {}\n#[cfg(test)]\n#[path = x]\nmod tests { fn b() { if c {} } }\nfn d() {}");
        assert_eq!(functions(&code).iter().map(|function| function.name.as_str()).collect::<Vec<_>>(), ["a", "d"]);
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_is_found() {
        let here = |path: &str| test_modules(&source(path, "#[cfg(test)]\nmod tests;"));
        assert_eq!(here("codec/mod.rs"), ["codec/tests"]);
        assert_eq!(here("codec/frame.rs"), ["codec/frame/tests"]);
        assert_eq!(here("lib.rs"), ["tests"]);
    }

    #[test]
    fn use_groups_are_expanded_to_their_leaves() {
        let text = "use crate::{\n    codec::{self, QoS as Quality, topic::TopicName},\n    net::tcp::*,\n};\nlet a = crate::auth::Verdict::Allow;";
        let expected = ["codec::self", "codec::QoS", "codec::topic::TopicName", "net::tcp::*", "auth::Verdict::Allow"];
        assert_eq!(paths("broker/mod.rs", text), expected);
    }

    #[test]
    fn super_reaches_the_root_only_from_the_right_depth() {
        assert_eq!(paths("broker/mod.rs", "use super::net::Tcp;"), ["net::Tcp"]);
        assert_eq!(paths("broker/shard.rs", "use super::super::net::Tcp;"), ["net::Tcp"]);
        assert!(paths("broker/shard.rs", "use super::net::Tcp;").is_empty());
    }

    #[test]
    fn an_entry_covers_what_lies_below_it_and_nothing_beside_it() {
        assert!(covers("codec::topic", "codec::topic::TopicName"));
        assert!(covers("codec", "codec"));
        assert!(!covers("codec::topic", "codec::topics"));
        assert!(!covers("codec::topic", "codec::Packet"));
    }

    #[test]
    fn function_lengths_count_from_the_signature_to_the_closing_brace() {
        let found =
            functions("fn a(b: [u8; 2]) -> [u8; 1]\nwhere\n    B: Fn(u8),\n{\n    c()\n}\nfn d();\ntype E = fn(u8);");
        assert_eq!(
            found.iter().map(|function| (function.name.as_str(), function.lines)).collect::<Vec<_>>(),
            [("a", 6)]
        );
    }

    #[test]
    fn words_are_found_whole() {
        assert_eq!(occurrences("operand rand strand rand_core", "rand"), [8]);
        assert_eq!(occurrences("a.elapsed() b.elapsed", ".elapsed("), [1]);
    }

    #[test]
    fn sockets_are_told_from_addresses() {
        let names = |text: &str| net_names(text).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(
            names("use std::net::{IpAddr, TcpStream}; std::net::UdpSocket::bind(x)"),
            ["IpAddr", "TcpStream", "UdpSocket"]
        );
        assert_eq!(names("use std::{fmt, net::{SocketAddr, TcpListener}};"), ["SocketAddr", "TcpListener"]);
        assert_eq!(names("use std::net; use std::mem;"), ["*"]);
    }
}
