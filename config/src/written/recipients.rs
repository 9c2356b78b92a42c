//! `secrets.toml` at the root of the tree as it is written.

use crate::written::declare::written;
use crate::written::sheet::At;

written! {
    /// Who may open the age values of this tree: the daemon, and whoever shall be able to decrypt them by hand.
    hidden Recipients {
        /// age recipients (`age1...`), as `forge secret keygen` prints them.
        required recipients: Vec<At<String>>,
    }
}
