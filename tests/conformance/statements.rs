//! The tables of normative statements, held against the tests: every statement of appendix B of both specifications
//! has a row, every row names tests that exist and cite it, or says why there can be none.
//!
//! A test cites a statement by its name (`mqtt_3_1_2_24_...` for MQTT 5, `mqtt311_...` for MQTT 3.1.1), or in its doc
//! comment after `MQTT 5:` or `MQTT 3.1.1:` (MQTT 5 if neither is said).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A row of a table.
struct Row {
    id: String,
    binds: String,
    tests: String,
}

/// A test and the statements it cites.
struct Test {
    file: PathBuf,
    v5: BTreeSet<String>,
    v311: BTreeSet<String>,
}

#[test]
fn every_statement_of_mqtt_5_is_accounted_for() {
    check("statements_v5.tsv", 251, |test| &test.v5);
}

#[test]
fn every_statement_of_mqtt_3_1_1_is_accounted_for() {
    check("statements_v311.tsv", 141, |test| &test.v311);
}

fn check(table: &str, statements: usize, cited: impl Fn(&Test) -> &BTreeSet<String>) {
    let rows = read_table(table);
    let tests = read_tests(Path::new("tests/conformance"));
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids.len(), rows.len(), "{table}: an id occurs twice");
    assert_eq!(rows.len(), statements, "{table}: appendix B has this many");
    let mut one_sided = Vec::new();
    for row in &rows {
        assert!(["server", "client", "both", "none"].contains(&row.binds.as_str()), "{}: binds {}", row.id, row.binds);
        if let Some(reason) = row.tests.strip_prefix("untestable: ") {
            assert!(reason.len() > 20, "{}: the reason is missing", row.id);
            continue;
        }
        let key = key_of(&row.id);
        let named: BTreeSet<&str> = row.tests.split(' ').collect();
        for name in &named {
            check_test(&tests, row, name, |test| cited(test).contains(&key));
        }
        if row.binds == "both" {
            for role in [Role::Server, Role::Client] {
                if !named.iter().any(|name| Role::of(&tests, name).is_none_or(|of| of == role)) {
                    one_sided.push(format!("{} for the {role:?}", row.id));
                }
            }
        }
        let missing = tests.iter().filter(|(name, test)| cited(test).contains(&key) && !named.contains(name.as_str()));
        let missing: Vec<_> = missing.map(|(name, test)| format!("{name} in {}", test.file.display())).collect();
        assert!(missing.is_empty(), "{table}: {} does not name {missing:?}", row.id);
    }
    assert!(one_sided.is_empty(), "{table}: these bind both, and have no test {one_sided:#?}");
    let known: BTreeSet<String> = rows.iter().map(|row| key_of(&row.id)).collect();
    for (name, test) in &tests {
        let unknown: Vec<_> = cited(test).difference(&known).collect();
        assert!(unknown.is_empty(), "{name} cites statements that do not exist: {unknown:?}");
    }
}

/// Whom a test is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

impl Role {
    /// By the name of the test's file; `None` for tests of the codec, which both use.
    fn of(tests: &BTreeMap<String, Test>, name: &str) -> Option<Self> {
        let file = match name.split_once("::") {
            Some((file, _)) => Path::new(file),
            None => &tests[name].file,
        };
        let file = file.file_name()?.to_str()?;
        match file {
            _ if file.starts_with("encoding") || file.starts_with("codec") || file.starts_with("ws") => None,
            _ if file.starts_with("client") => Some(Self::Client),
            _ => Some(Self::Server),
        }
    }
}

/// The test exists: in this suite, where it must cite the statement, or in another file (`path::name`).
fn check_test(tests: &BTreeMap<String, Test>, row: &Row, name: &str, cites: impl Fn(&Test) -> bool) {
    if let Some((file, name)) = name.split_once("::") {
        let source = fs::read_to_string(root().join(file)).unwrap_or_default();
        assert!(source.contains(&format!("fn {name}(")), "{}: {file} has no test {name}", row.id);
        return;
    }
    let Some(test) = tests.get(name) else { panic!("{}: there is no test {name:?}", row.id) };
    assert!(cites(test), "{}: {name} does not cite it", row.id);
}

fn read_table(name: &str) -> Vec<Row> {
    let text = fs::read_to_string(root().join("tests/conformance").join(name)).expect("the table is there");
    let row = |line: &str| match line.split('\t').collect::<Vec<_>>()[..] {
        [id, binds, section, paraphrase, tests] => {
            assert!(!section.is_empty() && !paraphrase.is_empty() && !tests.is_empty(), "{id}: a column is empty");
            Row { id: id.into(), binds: binds.into(), tests: tests.into() }
        }
        _ => panic!("{name}: not five columns: {line}"),
    };
    text.lines().skip(1).map(row).collect()
}

/// All `#[test]` functions below a directory.
fn read_tests(directory: &Path) -> BTreeMap<String, Test> {
    let mut tests = BTreeMap::new();
    for entry in fs::read_dir(root().join(directory)).expect("the directory is there") {
        let path = entry.expect("it can be read").path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("it can be read");
            read_source(&path, &source, &mut tests);
        }
    }
    tests
}

fn read_source(path: &Path, source: &str, tests: &mut BTreeMap<String, Test>) {
    let (mut docs, mut is_test) = (String::new(), false);
    for line in source.lines() {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push_str(doc);
        } else if line == "#[test]" {
            is_test = true;
        } else if let Some(name) = line.strip_prefix("fn ").and_then(|rest| rest.split_once('(')).map(|(name, _)| name)
        {
            if is_test {
                let test = citations(path, name, &docs);
                assert!(tests.insert(name.into(), test).is_none(), "two tests are called {name}");
            }
            (docs, is_test) = (String::new(), false);
        } else if !line.starts_with("#[") {
            docs.clear();
        }
    }
}

fn citations(path: &Path, name: &str, docs: &str) -> Test {
    let mut test = Test { file: path.into(), v5: BTreeSet::new(), v311: BTreeSet::new() };
    test.v5.extend(name.strip_prefix("mqtt_").and_then(leading_numbers));
    test.v311.extend(name.strip_prefix("mqtt311_").and_then(leading_numbers));
    let mut old = false;
    for word in docs.replace("MQTT 5:", "@5").replace("MQTT 3.1.1:", "@3").split_whitespace() {
        match word {
            "@5" => old = false,
            "@3" => old = true,
            _ => {
                let id = word.trim_end_matches(['.', ',', ':']).strip_prefix('[').and_then(|id| id.strip_suffix(']'));
                let cited = if old { &mut test.v311 } else { &mut test.v5 };
                cited.extend(id.filter(|id| id.starts_with("MQTT-")).map(key_of));
            }
        }
    }
    test
}

/// `3_1_2_24_rest` -> `3_1_2_24`.
fn leading_numbers(name: &str) -> Option<String> {
    let numbers: Vec<&str> = name.split('_').take(4).take_while(|part| part.parse::<u32>().is_ok()).collect();
    (numbers.len() == 4).then(|| numbers.join("_"))
}

/// `MQTT-3.1.2-24` -> `3_1_2_24`.
fn key_of(id: &str) -> String {
    id.trim_start_matches("MQTT-").replace(['.', '-'], "_")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
