//! The report as a person reads it, and as one JSON object.

use super::error::{Doing, Error};
use super::order::Buffers;
use super::plan::{Plan, Tuning};
use super::report::{LinkReport, Report, RoundTrip, Skipped, Throughput};
use super::targets::Target;
use comfy_table::{Cell, CellAlignment, Table, TableComponent, presets};
use std::io::Write;

const DASH: &str = "-";

/// The machine and the settings: what has to be known before any figure.
pub(super) fn heading(out: &mut dyn Write, report: &Report) -> Result<(), Error> {
    let machine = &report.machine;
    let about = format!(
        "machine   {}, {} cores ({:.1} idle), Linux {}, TCP {}\nsettings  {}",
        machine.cpu,
        machine.cores,
        machine.idle_cores,
        machine.kernel,
        machine.tcp_congestion,
        settings(&report.plan)
    );
    print(out, &about)?;
    if machine.optimised { Ok(()) } else { print(out, "warning   a debug build: its figures mean nothing") }
}

fn settings(plan: &Plan) -> String {
    format!(
        "{} MiB of {} data, rounds: {}, QUIC windows {} MiB, GSO {}",
        plan.bytes >> 20,
        plan.data.name(),
        plan.rounds,
        plan.tuning.window >> 20,
        if plan.tuning.gso { "on" } else { "off" },
    )
}

/// The links that could not be had: one line for each reason.
pub(super) fn skipped(out: &mut dyn Write, skipped: &[Skipped]) -> Result<(), Error> {
    skipped.iter().try_for_each(|Skipped { links, why }| {
        print(out, &format!("\nskipped   {}: {why}", links.join(", ")))
    })
}

/// One link's tables.
pub(super) fn link(out: &mut dyn Write, link: &LinkReport, tuning: &Tuning) -> Result<(), Error> {
    print(out, &format!("\n{}: {}", link.link, link.settings))?;
    let buffers = link.buffers.map(|buffers| granted(buffers, tuning.socket_buffer));
    print(out, &format!("UDP round trip {:.0} us{}\n", link.rtt_us, buffers.unwrap_or_default()))?;
    print(out, &throughput(&link.throughput).to_string())?;
    if link.round_trips.is_empty() {
        Ok(())
    } else {
        print(out, &format!("\n{}", round_trips(&link.round_trips)))
    }
}

/// What the kernel gave, and why it may be less than asked for.
fn granted(buffers: Buffers, asked: usize) -> String {
    let text = format!(", socket buffers {} KiB out, {} KiB in", buffers.send >> 10, buffers.receive >> 10);
    if buffers.send.min(buffers.receive) >= asked {
        return text;
    }
    format!("{text} (asked for {}; root gets it, or net.core.wmem_max and rmem_max)", asked >> 10)
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
    let (judged, open): (Vec<_>, Vec<_>) =
        report.targets.iter().partition(|target| target.measured.is_some());
    if judged.is_empty() {
        let text = format!("\ntargets   ft log did not run: none of its {} targets is judged", open.len());
        return print(out, &text);
    }
    let mut table = table(&["target of ft log", "link", "wanted", "measured", "reached"]);
    for target in judged {
        table.add_row([
            Cell::new(target.what),
            Cell::new(&target.link),
            Cell::new(&target.wanted),
            number(target.measured, 3),
            Cell::new(verdict(target)),
        ]);
    }
    print(out, &format!("\n{table}"))
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
    print(out, &serde_json::to_string(report).doing("write the report as JSON")?)
}

fn print(out: &mut dyn Write, text: &str) -> Result<(), Error> {
    writeln!(out, "{text}").doing("print the report")
}

/// A rule under the header and nothing else: the rows are few.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for part in [
        TableComponent::HeaderLines,
        TableComponent::MiddleHeaderIntersections,
        TableComponent::LeftHeaderIntersection,
        TableComponent::RightHeaderIntersection,
    ] {
        table.set_style(part, '─');
    }
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
    #![allow(clippy::unwrap_used)]
    use super::super::contender::Contender;
    use super::super::report::tests::link_with;
    use super::*;

    const TUNING: Tuning = Tuning { window: 1 << 24, socket_buffer: 8 << 20, gso: true, mtu: 1500 };

    #[test]
    fn a_table_fits_a_terminal_and_marks_what_is_missing() {
        let rates: [(Contender, &[f64]); 2] =
            [(Contender::Tcp, &[39.5, 40.0]), (Contender::Quinn, &[10.25, 10.75])];
        let mut out = Vec::new();
        link(&mut out, &link_with("loopback", &rates), &TUNING).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
        assert!(text.contains("10.25..10.75") && text.contains(" - "), "{text}");
    }

    #[test]
    fn links_with_the_same_obstacle_share_a_line() {
        let skipped = [Skipped { links: vec!["a".to_owned(), "b".to_owned()], why: "no root".to_owned() }];
        let mut out = Vec::new();
        super::skipped(&mut out, &skipped).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\nskipped   a, b: no root\n");
    }

    #[test]
    fn buffers_below_what_was_asked_for_come_with_a_remedy() {
        let buffers = Buffers { send: 4 << 20, receive: 8 << 20 };
        assert!(granted(buffers, 8 << 20).contains("wmem_max"));
        assert!(!granted(buffers, 4 << 20).contains("wmem_max"));
    }
}
