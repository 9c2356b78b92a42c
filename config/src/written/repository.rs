//! `projects/<project>/repositories/<repository>.toml` as it is written.

use crate::written::declare::written;
use crate::written::reader::Count;

written! {
    /// A git repository.
    hidden Repository {
        /// `https://`, `ssh://`, `git@host:path`, `file://` or an absolute path.
        required url: String,
        /// The branch. Default: the remote's own default.
        optional branch: String,
        /// The key that opens it.
        optional ssh_key: String,
        /// Whether submodules are checked out, each over https or ssh. Default: false.
        optional submodules: bool,
        /// How many commits of history to fetch; 0 is all. Default: 0.
        optional depth: Count,
    }
}
