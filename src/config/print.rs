//! The effective configuration as TOML that can be read back, each key under its comment.

use std::fmt::Write;

use serde::Serialize;

use super::sections::HIDDEN;

/// A TOML document being written.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Begins `[name]`.
    pub(super) fn table(&mut self, name: &str, about: &[&str]) {
        self.0.push('\n');
        self.comment(about);
        self.line(format_args!("[{name}]"));
    }

    /// Begins one more `[[name]]`.
    pub(super) fn element(&mut self, name: &str) {
        self.0.push('\n');
        self.line(format_args!("[[{name}]]"));
    }

    /// A key with its comment.
    pub(super) fn key(&mut self, name: &str, doc: &[&str], value: &impl Serialize) {
        self.comment(doc);
        let value = toml::Value::try_from(value).expect("configuration values are all of TOML's types");
        // A password that is not shown cannot be read back.
        let mark = if is_hidden(&value) { "# " } else { "" };
        self.line(format_args!("{mark}{name} = {value}"));
    }

    /// Lines behind `#`. Documentation lines bring their leading space along.
    pub(super) fn comment(&mut self, lines: &[&str]) {
        for line in lines {
            self.line(format_args!("# {}", line.trim()));
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a String takes all that is written");
    }
}

/// Whether a part of the value is hidden.
fn is_hidden(value: &toml::Value) -> bool {
    match value {
        toml::Value::String(text) => text == HIDDEN,
        toml::Value::Table(table) => table.values().any(is_hidden),
        _ => false,
    }
}
