//! What was measured, as a table, as JSON and as Markdown.

use serde::Serialize;

use super::machine::Machine;
use crate::printer::Table;

/// Everything that one run of the bench found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) machine: Machine,
    pub(super) measurements: Vec<Measured>,
}

/// One measurement.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) name: String,
    /// What was done, in words.
    pub(super) setting: String,
    pub(super) values: Vec<Value>,
}

/// One number.
#[derive(Debug, Serialize)]
pub(super) struct Value {
    /// What a program finds it by.
    pub(super) key: String,
    /// What it is, in words.
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) unit: Unit,
    /// What it should be, where that was said.
    pub(super) aim: Option<Aim>,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Unit {
    #[serde(rename = "ms")]
    Millis,
    #[serde(rename = "us")]
    Micros,
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "MB/s")]
    MegabytesPerSecond,
    #[serde(rename = "MiB")]
    Mebibytes,
    #[serde(rename = "KiB")]
    Kibibytes,
    #[serde(rename = "")]
    Count,
}

/// What a number should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Millis => " ms",
            Self::Micros => " µs",
            Self::PerSecond => "/s",
            Self::MegabytesPerSecond => " MB/s",
            Self::Mebibytes => " MiB",
            Self::Kibibytes => " KiB",
            Self::Count => "",
        }
    }

    /// A number of this unit as people write it: three digits that count, and no more.
    fn show(self, value: f64) -> String {
        let digits = if self == Self::Count || value.abs() >= 100.0 {
            0
        } else if value.abs() >= 10.0 {
            1
        } else {
            2
        };
        format!("{value:.digits$}{}", self.name())
    }
}

impl Aim {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn show(self, unit: Unit) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {}", unit.show(most)),
            Self::AtLeast(least) => format!("≥ {}", unit.show(least)),
        }
    }
}

impl Measured {
    /// A measurement without numbers yet.
    pub(super) fn new(name: &str, setting: impl Into<String>) -> Self {
        Self { name: name.to_owned(), setting: setting.into(), values: Vec::new() }
    }

    /// Adds a number.
    pub(super) fn value(&mut self, key: impl Into<String>, what: impl Into<String>, value: f64, unit: Unit) {
        self.values.push(Value { key: key.into(), what: what.into(), value, unit, aim: None });
    }

    /// Says what the number that was added last should be.
    pub(super) fn aim(&mut self, aim: Aim) {
        if let Some(last) = self.values.last_mut() {
            last.aim = Some(aim);
        }
    }

    /// Adds the median, the 95th and the 99th percentile of samples.
    pub(super) fn percentiles(&mut self, key: &str, what: &str, samples: &super::samples::Samples) {
        for percent in [50, 95, 99] {
            let (key, what) = (format!("{key}_p{percent}"), format!("{what}, p{percent}"));
            self.value(key, what, samples.percentile_ms(percent), Unit::Millis);
        }
    }
}

impl Report {
    fn rows(&self) -> impl Iterator<Item = [String; 5]> {
        self.measurements.iter().flat_map(|measured| {
            measured.values.iter().map(|value| {
                let (aim, verdict) = match value.aim {
                    None => (String::new(), ""),
                    Some(aim) if aim.is_met(value.value) => (aim.show(value.unit), "met"),
                    Some(aim) => (aim.show(value.unit), "missed"),
                };
                [measured.name.clone(), value.what.clone(), value.unit.show(value.value), aim, verdict.to_owned()]
            })
        })
    }

    /// A table for a terminal.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new(&["MEASUREMENT", "WHAT", "VALUE", "AIM", ""]);
        for row in self.rows() {
            table.row(row);
        }
        format!("{}\n{}", self.machine.line(), table.draw())
    }

    /// What docs/performance.md holds.
    pub(super) fn markdown(&self) -> String {
        let mut lines = vec![self.machine.line(), String::new()];
        for measured in &self.measurements {
            lines.push(format!("- `{}`: {}", measured.name, measured.setting));
        }
        lines.push(String::new());
        lines.push("| measurement | what | value | aim | |".to_owned());
        lines.push("|---|---|---:|---:|---|".to_owned());
        for [name, what, value, aim, verdict] in self.rows() {
            lines.push(format!("| `{name}` | {what} | {value} | {aim} | {verdict} |"));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut measured = Measured::new("start", "2 tasks");
        measured.value("p50", "median", 4.256, Unit::Millis);
        measured.aim(Aim::AtMost(5.0));
        measured.value("rate", "tasks a second", 1_234.5, Unit::PerSecond);
        measured.aim(Aim::AtLeast(1_500.0));
        measured.value("count", "tasks", 2.0, Unit::Count);
        Report { version: "0", machine: Machine::default(), measurements: vec![measured] }
    }

    #[test]
    fn a_row_says_whether_its_aim_is_met() {
        let markdown = report().markdown();
        for line in [
            "- `start`: 2 tasks",
            "| `start` | median | 4.26 ms | ≤ 5.00 ms | met |",
            "| `start` | tasks a second | 1234/s | ≥ 1500/s | missed |",
            "| `start` | tasks | 2 |  |  |",
        ] {
            assert!(markdown.lines().any(|found| found == line), "{line} is missing in\n{markdown}");
        }
        assert!(report().text().contains("missed"));
    }
}
