//! Figures beside what is to be reached, for a person.

use comfy_table::{CellAlignment, Table, presets};

/// A figure and its aim.
pub(super) struct Row {
    what: String,
    value: f64,
    aim: Aim,
}

/// What is to be reached.
#[derive(Clone, Copy)]
pub(super) enum Aim {
    AtLeast(f64),
    AtMost(f64),
    None,
}

/// One line of a table.
pub(super) fn row(what: impl Into<String>, value: f64, aim: Aim) -> Row {
    Row { what: what.into(), value, aim }
}

/// All lines, under a heading.
pub(super) fn table(heading: &str, rows: Vec<Row>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header([heading, "measured", "aim", "reached"]);
    for Row { what, value, aim } in rows {
        let (aim, reached) = match aim {
            Aim::AtLeast(least) => (format!(">= {}", figure(least)), Some(value >= least)),
            Aim::AtMost(most) => (format!("<= {}", figure(most)), Some(value <= most)),
            Aim::None => (String::new(), None),
        };
        let reached = reached.map_or("", |reached| if reached { "yes" } else { "NO" });
        let value = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
        table.add_row([what.as_str(), &value, &aim, reached]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// An aim as somebody would write it, also where it is calculated.
fn figure(value: f64) -> String {
    ((value * 1000.0).round() / 1000.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_its_aim() {
        let rows = vec![
            row("fast", 123.4, Aim::AtLeast(100.0)),
            row("late", 2.5004, Aim::AtMost(2.49967)),
            row("none", f64::NAN, Aim::AtMost(1.0)),
            row("told", 1.0, Aim::None),
        ];
        let text = table("x", rows).to_string();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        for line in [
            vec!["fast", "123", ">=", "100", "yes"],
            vec!["late", "2.500", "<=", "2.5", "NO"],
            vec!["none", "NaN", "<=", "1", "NO"],
            vec!["told", "1.000"],
        ] {
            assert!(lines.contains(&line), "{line:?} in {text}");
        }
    }
}
