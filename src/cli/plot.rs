//! A report as a picture: latency by percentile, and messages a second over time, as SVG.

use std::fmt::Write;

use crate::bench::{Report, SLICE};

/// Draws both beside each other.
pub(super) fn draw(title: &str, report: &Report) -> String {
    let mut svg = String::new();
    let _ = write!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {HEIGHT}" font-family="sans-serif" font-size="12">"#,
        2.0 * WIDTH
    );
    let _ = write!(
        svg,
        r#"<rect width="100%" height="100%" fill="white"/><text x="16" y="20" font-size="14">{}</text>"#,
        escaped(title)
    );
    let latencies: Vec<_> = (0..=STEPS)
        .map(|step| {
            // Each step takes away the same share of what is left of all: 90 %, 99 %, 99.9 %.
            let nines = f64::from(step) / f64::from(STEPS) * NINES;
            (nines, report.latency.quantile(1.0 - 10f64.powf(-nines)) as f64 / 1e3)
        })
        .collect();
    let percentiles = [(0.0, "0 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")];
    panel(
        &mut svg,
        0.0,
        "latency, us, by percentile",
        &latencies,
        &percentiles.map(|(at, name)| (at, name.to_owned())),
    );
    let slice = SLICE.as_secs_f64();
    let rates: Vec<_> = report
        .slices
        .iter()
        .enumerate()
        .map(|(at, count)| ((at as f64 + 1.0) * slice, *count as f64 / slice))
        .collect();
    let end = rates.last().map_or(1.0, |(at, _)| *at);
    let ticks: Vec<_> = (0..=4).map(|step| f64::from(step) / 4.0 * end).map(|at| (at, format!("{at:.1} s"))).collect();
    panel(&mut svg, WIDTH, "messages/s", &rates, &ticks);
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, left: f64, title: &str, points: &[(f64, f64)], ticks: &[(f64, String)]) {
    let top = points.iter().map(|(_, y)| *y).fold(0.0, f64::max).max(1.0);
    let end = ticks.last().map_or(1.0, |(at, _)| *at);
    let x = |at: f64| left + MARGIN + at / end * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| (1.0 - value / top).mul_add(HEIGHT - 2.0 * MARGIN, MARGIN);
    let _ = write!(svg, r#"<text x="{:.1}" y="{:.1}">{title}</text>"#, left + MARGIN, MARGIN - 10.0);
    for (at, name) in ticks {
        let _ = write!(
            svg,
            r##"<path d="M{0:.1} {1:.1}V{2:.1}" stroke="#ddd"/><text x="{0:.1}" y="{3:.1}" text-anchor="middle">{name}</text>"##,
            x(*at),
            y(0.0),
            y(top),
            y(0.0) + 18.0
        );
    }
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let _ = write!(
            svg,
            r##"<path d="M{0:.1} {1:.1}H{2:.1}" stroke="#ddd"/><text x="{3:.1}" y="{1:.1}" text-anchor="end">{value:.0}</text>"##,
            x(0.0),
            y(value),
            x(end),
            x(0.0) - 6.0
        );
    }
    let path: Vec<String> = points.iter().map(|(at, value)| format!("{:.1} {:.1}", x(*at), y(*value))).collect();
    if !path.is_empty() {
        let _ = write!(svg, r##"<path d="M{}" fill="none" stroke="#b7410e" stroke-width="2"/>"##, path.join("L"));
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 64.0;
const STEPS: u32 = 80;
const NINES: f64 = 4.0;
