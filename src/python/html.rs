//! What notebooks show of brokers and clients: a heading and counters. No scripts, and all text is escaped.

use std::fmt::Write as _;

use pyo3::{prelude::*, types::PyDict};

/// A heading, and a table of the counters that are not zero; those in dictionaries have the name of theirs in front.
pub(crate) fn counters(heading: &str, stats: &Bound<'_, PyDict>) -> PyResult<String> {
    let mut html = format!("<div class=\"ferromq\"><p><b>{}</b></p><table><tbody>", escape(heading));
    write_rows("", stats, &mut html)?;
    html.push_str("</tbody></table></div>");
    Ok(html)
}

fn write_rows(group: &str, stats: &Bound<'_, PyDict>, html: &mut String) -> PyResult<()> {
    for (name, value) in stats {
        let name = name.extract::<String>()?.replace('_', " ");
        if let Ok(inner) = value.cast::<PyDict>() {
            write_rows(&format!("{group}{name}: "), inner, html)?;
        } else if value.is_truthy()? {
            let value = value.str()?.to_string();
            let row = write!(html, "<tr><td>{}{}</td><td>{}</td></tr>", escape(group), escape(&name), escape(&value));
            row.expect("a string takes all");
        }
    }
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
