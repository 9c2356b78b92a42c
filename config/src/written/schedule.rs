//! `projects/<project>/schedules/<schedule>.toml` as it is written.

use crate::written::declare::{choice, written};
use crate::written::raw::RawTable;

written! {
    /// A schedule: starts a template's tasks at certain times, each time once. What was missed while the daemon was away is made up for once.
    shown Schedule {
        /// When, in five fields: minute, hour, day of the month, month, day of the week, as in `"30 4 * * MON-FRI"`.
        required cron: String,
        /// The time zone of those fields, by its IANA name. When clocks are set, fields that name hours mean the clock on the wall: a time that
        /// does not exist comes at the end of the gap, one that comes twice counts the first time. With `*` for the hour they mean the time that
        /// passes. Default: `"UTC"`.
        optional timezone: String,
        /// The template that is started.
        required template: String,
        /// Answers to the template's survey, by question.
        optional params: RawTable,
        /// Whether it fires. Default: true.
        optional enabled: bool,
        /// What a firing does while a task of this schedule is open. Default: `"skip"`.
        optional overlap: Overlap,
    }
}

choice! {
    /// What a firing does while a task of the same schedule is open.
    Overlap { "skip" => Skip, "queue" => Queue, }
}
