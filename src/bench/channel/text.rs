//! The report as a person reads it, and as one JSON object.

use super::error::{Doing, Error};
use super::order::Buffers;
use super::plan::Plan;
use super::report::{LinkReport, Report, RoundTrip, Throughput};
use super::targets::Target;
use comfy_table::{Cell, CellAlignment, Table, presets};
use std::io::Write;

const DASH: &str = "-";

/// The machine and the settings: what has to be known before any figure.
pub(super) fn heading(out: &mut dyn Write, report: &Report) -> Result<(), Error> {
    let machine = &report.machine;
    let plan = &report.plan;
    let lines = [
        format!(
            "machine   {}, {} cores ({:.1} idle), Linux {}, TCP {}",
            machine.cpu, machine.cores, machine.idle_cores, machine.kernel, machine.tcp_congestion
        ),
        format!("settings  {}", settings(plan)),
    ];
    for line in lines {
        writeln!(out, "{line}").doing("print the report")?;
    }
    if !machine.optimised {
        writeln!(out, "warning   this is a debug build: its figures mean nothing")
            .doing("print the report")?;
    }
    Ok(())
}

fn settings(plan: &Plan) -> String {
    format!(
        "{} MiB of {} data, {} rounds, QUIC windows {} MiB, GSO {}",
        plan.bytes >> 20,
        format!("{:?}", plan.data).to_lowercase(),
        plan.rounds,
        plan.tuning.window >> 20,
        if plan.tuning.gso { "on" } else { "off" },
    )
}

/// A link that could not be had.
pub(super) fn skipped(out: &mut dyn Write, link: &str, why: &Error) -> Result<(), Error> {
    writeln!(out, "\n{link}: skipped: {why}").doing("print the report")
}

/// One link's tables.
pub(super) fn link(out: &mut dyn Write, link: &LinkReport) -> Result<(), Error> {
    let buffers = link.buffers.map(|buffers| format!(", socket buffers {}", granted(buffers)));
    let rtt = format!("UDP round trip {:.0} us", link.rtt_us);
    writeln!(out, "\n{}: {}, {rtt}{}", link.link, link.settings, buffers.unwrap_or_default())
        .doing("print the report")?;
    writeln!(out, "{}", throughput(&link.throughput)).doing("print the report")?;
    if !link.round_trips.is_empty() {
        writeln!(out, "{}", round_trips(&link.round_trips)).doing("print the report")?;
    }
    Ok(())
}

fn granted(buffers: Buffers) -> String {
    format!("{} KiB send, {} KiB receive", buffers.send >> 10, buffers.receive >> 10)
}

fn throughput(rows: &[Throughput]) -> Table {
    let mut table = table(&[
        "channel",
        "Gbit/s",
        "min..max",
        "send CPU s/GB",
        "recv CPU s/GB",
        "others, cores",
        "/ quinn",
        "/ TLS",
    ]);
    for row in rows {
        table.add_row([
            Cell::new(row.contender.title()),
            number(row.gbit_s.map(|rate| rate.median), 2),
            Cell::new(row.gbit_s.map_or(DASH.to_owned(), |rate| format!("{:.2}..{:.2}", rate.min, rate.max))),
            number(row.sender_cpu_s_per_gb, 2),
            number(row.receiver_cpu_s_per_gb, 2),
            number(row.other_cores, 2),
            number(row.ratio_to_quinn, 3),
            number(row.ratio_to_tls, 3),
        ]);
    }
    aligned(table)
}

fn round_trips(rows: &[RoundTrip]) -> Table {
    let mut table = table(&["64-byte round trip", "p50 us", "p99 us", "least us", "messages"]);
    for row in rows {
        table.add_row([
            Cell::new(row.method.title()),
            number(row.p50_us, 1),
            number(row.p99_us, 1),
            number(row.min_us, 1),
            Cell::new(row.count),
        ]);
    }
    aligned(table)
}

/// The aims, and whether they are reached.
pub(super) fn targets(out: &mut dyn Write, report: &Report) -> Result<(), Error> {
    let mut table = table(&["target of ft log", "link", "wanted", "measured", "reached"]);
    for target in &report.targets {
        table.add_row([
            Cell::new(target.what),
            Cell::new(&target.link),
            Cell::new(&target.wanted),
            number(target.measured, 3),
            Cell::new(verdict(target)),
        ]);
    }
    writeln!(out, "\n{}", table).doing("print the report")
}

fn verdict(target: &Target) -> &'static str {
    match target.reached {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "did not run",
    }
}

/// The whole report on one line.
pub(super) fn json(out: &mut dyn Write, report: &Report) -> Result<(), Error> {
    let json = serde_json::to_string(report).doing("write the report as JSON")?;
    writeln!(out, "{json}").doing("print the report")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

/// Names to the left, figures to the right.
fn aligned(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn number(figure: Option<f64>, decimals: usize) -> Cell {
    Cell::new(figure.map_or(DASH.to_owned(), |figure| format!("{figure:.decimals$}")))
}

#[cfg(test)]
mod tests {
    use super::super::contender::Contender;
    use super::super::report::tests::link_with;
    use super::*;

    #[test]
    fn a_table_fits_a_terminal_and_marks_what_is_missing() {
        let rates: [(Contender, &[f64]); 2] =
            [(Contender::Tcp, &[39.5, 40.0]), (Contender::Quinn, &[10.25, 10.75])];
        let mut out = Vec::new();
        link(&mut out, &link_with("loopback", &rates)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
        assert!(text.contains("10.25..10.75") && text.contains(" - "), "{text}");
    }
}
