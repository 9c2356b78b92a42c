//! `access/<token>.toml` as it is written.

use crate::written::declare::{choice, written};
use crate::written::reader::Moment;
use crate::written::sheet::At;

written! {
    /// What an access token may do.
    hidden Access {
        /// The token's SHA-256, as `forge token new` prints it.
        required hash: String,
        /// Its role; each role may what the ones before it may: viewer, operator, owner, admin.
        required role: Role,
        /// The projects that it reaches. Absent: all of them.
        optional projects: Vec<At<String>>,
        /// Refused from this moment on.
        optional expires: Moment,
    }
}

choice! {
    /// How far an access token reaches.
    Role { "viewer" => Viewer, "operator" => Operator, "owner" => Owner, "admin" => Admin, }
}
