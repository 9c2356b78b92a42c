//! `plugins/<plugin>.toml` as it is written.

use crate::written::declare::written;
use crate::written::reader::{Duration, Size};
use crate::written::sheet::At;
use crate::written::webhook::SecretConfig;

written! {
    /// A plugin and what it may do.
    shown Plugin {
        /// `builtin:<name>`, or the component's path in the tree, such as `plugins/ansible.wasm`.
        required source: String,
        /// The component's SHA-256; a file needs it.
        optional sha256: String,
        /// What it may do: nothing is allowed unless it is named here.
        optional allow: Allow,
        /// How much it may use.
        optional limits: Limits,
        /// What it is told, by its own schema. A secret (`{ file = "..." }`, and so on) it sees as `{{secret:field}}` only: the host fills it in.
        optional config: SecretConfig,
    }
}

written! {
    /// What a plugin may do.
    shown Allow {
        /// Programs by bare name, found on the runner's PATH.
        optional programs: Vec<At<String>>,
        /// Hosts of webhook targets: `host` or `host:port`, https unless `http://...` is written. A name leads to public addresses alone, unless the network stands with it, as in `chat.example.com in 10.0.0.0/8`; an address grants itself.
        optional hosts: Vec<At<String>>,
        /// Variables of the runner's own environment that its processes see.
        optional env: Vec<At<String>>,
    }
}

written! {
    /// How much a plugin may use of its own computing.
    shown Limits {
        /// Its memory. Default: `"64MiB"`.
        optional memory: Size,
        /// Its own computing, without what it waits for. Default: `"5s"`.
        optional time: Duration,
    }
}
