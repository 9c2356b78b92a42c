//! `projects/<project>/project.toml` as it is written.

use crate::written::declare::written;
use crate::written::reader::{Count, Duration};
use crate::written::sheet::At;

written! {
    /// A project: what its templates share.
    shown Project {
        /// What it is, for people.
        optional description: String,
        /// Whether global runners take its tasks. False: only this project's own runners do. Default: true.
        optional global_runners: bool,
        /// How many of its tasks run at a time; 0 is unlimited. Default: 0.
        optional max_parallel_tasks: Count,
        /// The tag that a runner must have, for templates whose own and whose inventory's is not set.
        optional runner_tag: String,
        /// How much history each template keeps. Default: `{ tasks = 1000, age = "90d" }`.
        optional retention: Retention,
        /// The webhook targets that are told of every task of this project.
        optional webhooks: Vec<At<String>>,
    }
}

written! {
    /// How much history a template keeps: what is beyond either goes.
    shown Retention {
        /// The newest so many finished tasks; 0 is unlimited. Default: 1000.
        optional tasks: Count,
        /// Finished tasks younger than this; `"0s"` is unlimited. Default: `"90d"`.
        optional age: Duration,
    }
}
