//! `projects/<project>/inventories/<inventory>.toml` as it is written.

use crate::written::declare::{choice, written};

written! {
    /// An inventory: what the executor works on.
    shown Inventory {
        /// Where it comes from.
        required kind as "type": InventoryType,
        /// Its text, for `static` (INI) and `static-yaml`; the workspace's name, for `terraform-workspace`.
        optional content: String,
        /// Its file, for `file`: relative to the root of the repository.
        optional path: String,
        /// The repository of the file. Default: the template's.
        optional repository: String,
        /// The tag that a runner must have, for templates that do not set their own.
        optional runner_tag: String,
        /// The key that opens its hosts.
        optional ssh_key: String,
        /// The key for becoming another user on them.
        optional become_key: String,
    }
}

choice! {
    /// Where an inventory comes from.
    InventoryType {
        "static" => Static,
        "static-yaml" => StaticYaml,
        "file" => File,
        "terraform-workspace" => TerraformWorkspace,
    }
}
