//! What notebooks show of brokers and clients: a heading and counters, and of a broker its clients. No scripts, and all
//! text is escaped.

use std::fmt::Write as _;

use pyo3::{prelude::*, types::PyDict};

use super::broker_view::version_name;
use crate::broker::ClientInfo;

/// A broker: its counters, and those of its clients that hold most, or else come first by name.
pub(crate) fn broker(heading: &str, stats: &Bound<'_, PyDict>, mut clients: Vec<ClientInfo>) -> PyResult<String> {
    let mut html = counters(heading, stats)?;
    if clients.is_empty() {
        return Ok(html);
    }
    clients.sort_by(|left, right| {
        right.bytes_held.cmp(&left.bytes_held).then_with(|| left.client_id.cmp(&right.client_id))
    });
    html.push_str("<table><thead><tr>");
    for title in ["client", "user", "MQTT", "address", "subscriptions", "queued", "in flight", "bytes held"] {
        write!(html, "<th>{title}</th>").expect("a string takes all");
    }
    html.push_str("</tr></thead><tbody>");
    for client in clients.iter().take(CLIENTS_SHOWN) {
        let cells = [
            client.client_id.to_string(),
            client.username.as_deref().unwrap_or_default().to_owned(),
            version_name(client.version).to_owned(),
            client.address.as_deref().unwrap_or("away").to_owned(),
            client.subscriptions.to_string(),
            client.queued.to_string(),
            client.inflight.to_string(),
            client.bytes_held.to_string(),
        ];
        let cells = cells.map(|cell| format!("<td>{}</td>", escape(&cell)));
        write!(html, "<tr>{}</tr>", cells.concat()).expect("a string takes all");
    }
    html.push_str("</tbody></table>");
    if clients.len() > CLIENTS_SHOWN {
        write!(html, "<p>and {} more clients</p>", clients.len() - CLIENTS_SHOWN).expect("a string takes all");
    }
    Ok(html)
}

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

/// Clients in the table.
const CLIENTS_SHOWN: usize = 20;
