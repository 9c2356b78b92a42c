//! `projects/<project>/environments/<environment>.toml` as it is written.

use crate::written::declare::written;
use crate::written::raw::RawTable;
use crate::written::reader::Named;
use crate::written::secret::EnvironmentSecret;

written! {
    /// An environment: variables and secrets for a job.
    hidden Environment {
        /// Extra variables: any TOML values, by name.
        optional variables: RawTable,
        /// Entries of the process's environment, by name.
        optional env: Named<String>,
        /// Secrets by name, each with where it comes from and `as = "env"` (default) or `as = "var"`.
        optional secrets: Named<EnvironmentSecret>,
    }
}
