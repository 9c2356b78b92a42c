//! `runners/<runner>.toml` as it is written.

use crate::written::declare::written;
use crate::written::reader::{Count, Duration};
use crate::written::sheet::At;

written! {
    /// What a runner of this name may do. A runner never grants itself anything.
    shown Runner {
        /// Its tags.
        optional tags: Vec<At<String>>,
        /// The project that it belongs to. Absent: a global runner.
        optional project: String,
        /// How many tasks it runs at a time; 0 is unlimited. The smaller of this and the runner's own counts. Default: 0.
        optional max_parallel_tasks: Count,
        /// Whether it takes tasks without a tag. Default: true without tags, false with.
        optional run_untagged: bool,
        /// Whether it takes tasks at all. Default: true.
        optional enabled: bool,
        /// The webhook targets that are told `task.waiting` for tasks that it could take, and `runner.idle` after its last one.
        optional webhooks: Vec<At<String>>,
        /// How long a one-off runner of this name waits for a task before it is told to leave; `"0s"` is for ever. Default: `"10m"`.
        optional one_off_wait: Duration,
        /// The only registration token that may register it.
        optional registration_token: String,
    }
}
