//! `registration-tokens/<token>.toml` as it is written.

use crate::written::declare::written;
use crate::written::reader::{Count, Moment, Whole};
use crate::written::sheet::At;

written! {
    /// A token that registers runners. What stands here is for runners without a file of their own.
    hidden RegistrationToken {
        /// The token's SHA-256, as `forge token new` prints it.
        required hash: String,
        /// The project of the runners that it registers. Absent: global runners.
        optional project: String,
        /// The tags of the runners that it registers.
        optional tags: Vec<At<String>>,
        /// How many tasks such a runner runs at a time; 0 is unlimited. Default: 0.
        optional max_parallel_tasks: Count,
        /// Refused from this moment on.
        optional expires: Moment,
        /// How many registrations it is good for. Default: any number.
        optional uses: Whole<1, { u32::MAX as i64 }>,
        /// The only runner that it registers.
        optional runner: String,
    }
}
