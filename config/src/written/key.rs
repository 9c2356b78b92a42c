//! `projects/<project>/keys/<key>.toml` as it is written.

use crate::written::declare::{choice, written};
use crate::written::secret::Secret;

written! {
    /// A key: what opens repositories and hosts.
    hidden Key {
        /// What it is; each type has its own keys.
        required kind as "type": KeyType,
        /// The user, for `ssh` (optional) and `login_password`.
        optional login: String,
        /// The private key, for `ssh`.
        optional private_key: Secret,
        /// What opens the private key, for `ssh` (optional).
        optional passphrase: Secret,
        /// The password or access token, for `login_password`.
        optional password: Secret,
        /// The text, for `string`.
        optional value: Secret,
    }
}

choice! {
    /// What a key is.
    KeyType { "ssh" => Ssh, "login_password" => LoginPassword, "string" => String, }
}
