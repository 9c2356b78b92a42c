//! From where a secret comes to what it is. Asked at claim, and never kept.
//!
//! An age value opens for the project that it carries inside (see `age_value`). The host kinds (`file`, `env`, `credential`)
//! resolve only where `[secrets.allow.<project>]` of forge.toml says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forge_api::Secret;
use forge_config::{SecretValue, SecretsAllow};

use super::age_value::open_for_project;
use crate::scheduler::spec::SecretRef;

/// The most bytes of one secret value.
pub const SECRET_BYTES_MAX: u64 = 1024 * 1024;

/// Why a secret does not resolve. None repeats a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The daemon has no identity.
    #[error("an age value needs `identity_file` under [secrets] of forge.toml, and it is not set")]
    NoIdentity,
    /// The identity file cannot be read.
    #[error("the identity file {}: {source}", path.display())]
    IdentityFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The identity file holds something else.
    #[error("the identity file {} holds no age identity (a line AGE-SECRET-KEY-1...)", path.display())]
    BadIdentity {
        /// The file.
        path: PathBuf,
    },
    /// The value is no age file.
    #[error(
        "the age value is not whole: it must begin with `-----BEGIN AGE ENCRYPTED FILE-----` and end as age wrote it"
    )]
    Armor,
    /// No identity opens it.
    #[error("none of the daemon's identities opens the age value: encrypt it to the recipients of secrets.toml")]
    Locked,
    /// It was not encrypted for a project.
    #[error(
        "the age value does not carry its project inside; write it with `forge secret encrypt --project {project}`"
    )]
    NoProject {
        /// The project that asked.
        project: String,
    },
    /// It was encrypted for another project.
    #[error(
        "the age value was encrypted for another project; write one with `forge secret encrypt --project {project}`"
    )]
    OtherProject {
        /// The project that asked.
        project: String,
    },
    /// The host's administrator did not allow it.
    #[error("{what} is not allowed to project {project}; add it to [secrets.allow.{project}] of forge.toml")]
    NotAllowed {
        /// Such as "file /etc/x".
        what: String,
        /// The project that asked.
        project: String,
    },
    /// It is allowed and not there.
    #[error("{what} cannot be read: {reason}")]
    Unreadable {
        /// Such as "file /etc/x".
        what: String,
        /// Why.
        reason: String,
    },
    /// Jobs take texts.
    #[error("the value of {what} is no UTF-8 text")]
    NoText {
        /// Such as "file /etc/x".
        what: String,
    },
}

/// What resolves secrets.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    pub(crate) identity_file: Option<PathBuf>,
    pub(crate) allow: BTreeMap<String, SecretsAllow>,
}

impl Resolver {
    /// The value of a secret of a project; it blocks for as long as a small file takes.
    pub(crate) fn resolve(&self, project: &str, value: &SecretRef) -> Result<Secret, SecretError> {
        let allowed = |what: &str, value: SecretValue| match self.allow.get(project) {
            Some(allow) if allow.allows(&value) => Ok(()),
            Some(_) | None => Err(SecretError::NotAllowed { what: what.to_owned(), project: project.to_owned() }),
        };
        match value {
            SecretRef::Age(armored) => open_for_project(self.identity_file.as_deref(), project, armored),
            SecretRef::File(path) => {
                let what = format!("file {path}");
                allowed(&what, SecretValue::File(path.clone()))?;
                read_text(&what, Path::new(path))
            }
            SecretRef::Env(name) => {
                let what = format!("variable {name}");
                allowed(&what, SecretValue::Env(name.clone()))?;
                match std::env::var(name) {
                    Ok(value) => Ok(Secret::new(value)),
                    Err(std::env::VarError::NotPresent) => {
                        Err(SecretError::Unreadable { what, reason: "the daemon's environment has none".to_owned() })
                    }
                    Err(std::env::VarError::NotUnicode(_)) => Err(SecretError::NoText { what }),
                }
            }
            SecretRef::Credential(name) => {
                let what = format!("credential {name}");
                allowed(&what, SecretValue::Credential(name.clone()))?;
                if name.is_empty() || name.starts_with('.') || name.contains('/') {
                    return Err(SecretError::Unreadable { what, reason: "that is no credential's name".to_owned() });
                }
                let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") else {
                    let reason = "systemd gave the daemon no credentials (LoadCredential= in its unit)".to_owned();
                    return Err(SecretError::Unreadable { what, reason });
                };
                read_text(&what, &PathBuf::from(folder).join(name))
            }
        }
    }
}

fn read_text(what: &str, path: &Path) -> Result<Secret, SecretError> {
    use std::io::Read as _;
    let unreadable = |reason: String| SecretError::Unreadable { what: what.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > SECRET_BYTES_MAX {
        return Err(unreadable(format!("it is longer than {SECRET_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| SecretError::NoText { what: what.to_owned() })?;
    // Editors end a file with a line feed that is no part of a password. A private key keeps its inner ones.
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(folder: &Path) -> Resolver {
        let files = vec![format!("{}/*", folder.display())];
        let allow = SecretsAllow { files, env: vec!["CARGO_*".to_owned()], credentials: Vec::new() };
        Resolver { identity_file: None, allow: [("shop".to_owned(), allow)].into() }
    }

    #[test]
    fn an_age_value_needs_an_identity() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = resolver(folder.path()).resolve("shop", &SecretRef::Age(String::new()));
        assert!(matches!(refused, Err(SecretError::NoIdentity)));
    }

    #[test]
    fn host_kinds_resolve_only_where_they_are_allowed() {
        let folder = tempfile::tempdir().expect("a folder");
        let resolver = resolver(folder.path());
        let path = folder.path().join("password");
        std::fs::write(&path, "hunter2\n").expect("write");
        let file = SecretRef::File(path.display().to_string());
        assert_eq!(resolver.resolve("shop", &file).expect("allowed").reveal(), "hunter2");
        assert!(matches!(resolver.resolve("bank", &file), Err(SecretError::NotAllowed { .. })));
        let outside = SecretRef::File("/etc/hostname".to_owned());
        let text = resolver.resolve("shop", &outside).expect_err("outside").to_string();
        assert!(text.contains("[secrets.allow.shop]"), "{text}");
        let missing = SecretRef::File(folder.path().join("missing").display().to_string());
        assert!(matches!(resolver.resolve("shop", &missing), Err(SecretError::Unreadable { .. })));
        assert!(resolver.resolve("shop", &SecretRef::Env("CARGO_MANIFEST_DIR".to_owned())).is_ok());
        assert!(matches!(
            resolver.resolve("shop", &SecretRef::Env("PATH".to_owned())),
            Err(SecretError::NotAllowed { .. })
        ));
    }
}
