//! What git's processes see: a configuration that is ours alone, and the repository's key.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;

use forge_api::{KeyMaterial, Repository};

use super::Git;
use crate::files;

/// What git is told beside its command line. Repositories of other users on this machine are read, never trusted with hooks.
const CONFIG: &str = "[safe]\n\tdirectory = *\n[core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[advice]\n\tdetachedHead = false\n[init]\n\tdefaultBranch = main\n[http]\n\tfollowRedirects = initial\n[credential]\n\thelper =\n";

/// The variable that names the protocols that git may use. It overrides every `protocol.*.allow` of a configuration.
pub(super) const ALLOW_PROTOCOL: &str = "GIT_ALLOW_PROTOCOL";

/// What a repository's own URL may be: the tree names it, and the check of URLs has passed it.
const PROTOCOLS: &str = "https:ssh:file";

/// What a submodule's URL may be: whoever may commit to the repository names it, and git's own `ext` would start a program.
pub(super) const SUBMODULE_PROTOCOLS: &str = "https:ssh";

/// Where the keys of hosts are kept that were seen once.
const KNOWN_HOSTS: &str = "known_hosts";

impl Git<'_> {
    /// The whole environment of git's processes: what a user's or the system's files say does not count.
    pub(super) fn env(&self, repository: &Repository, role: &str) -> io::Result<BTreeMap<OsString, OsString>> {
        let config = self.scripts.join(format!("{role}.gitconfig"));
        let text = format!("{CONFIG}{}", self.credential(repository, role)?);
        files::write_new_private(&config, text.as_bytes(), 0o600)?;
        let mut env: BTreeMap<OsString, OsString> =
            self.environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let mut set = |name: &str, value: &str| env.insert(name.into(), value.into());
        set("GIT_CONFIG_NOSYSTEM", "1");
        set("GIT_CONFIG_GLOBAL", &config.display().to_string());
        set("GIT_TERMINAL_PROMPT", "0");
        set(ALLOW_PROTOCOL, PROTOCOLS);
        set("GIT_ADVICE", "0");
        set("HOME", &self.scripts.display().to_string());
        let mut ssh = "ssh".to_owned();
        if let Some(config) = self.ssh_config_path {
            ssh.push_str(&format!(" -F {}", quoted(&config.display().to_string())));
        } else {
            // Kept beside the caches and not in the user's home, which a service may not be able to write: a host key that is
            // forgotten would be taken anew each time, whoever shows it.
            let known_hosts = self.caches.join(KNOWN_HOSTS);
            let option = format!("UserKnownHostsFile=\"{}\"", known_hosts.display());
            ssh.push_str(&format!(" -o StrictHostKeyChecking=accept-new -o {}", quoted(&option)));
        }
        match &repository.key {
            None => ssh.push_str(" -o BatchMode=yes"),
            Some(KeyMaterial::Ssh { login, private_key, passphrase }) => {
                let key = self.secret(role, "key", &crate::workspace::ended_line(private_key.reveal()))?;
                ssh.push_str(&format!(" -i {} -o IdentitiesOnly=yes", quoted(&key)));
                // A login of the URL wins: ssh takes the first that it hears of, which is the command line's.
                if let Some(login) = login.as_deref().filter(|_| !repository.url.contains('@')) {
                    ssh.push_str(&format!(" -l {}", quoted(login)));
                }
                match passphrase {
                    None => ssh.push_str(" -o BatchMode=yes"),
                    Some(passphrase) => {
                        let file = self.secret(role, "passphrase", passphrase.reveal())?;
                        set("SSH_ASKPASS", &self.script(role, &passphrase_script(&file))?);
                        set("SSH_ASKPASS_REQUIRE", "force");
                    }
                }
            }
            // Over https these are the configuration's; ssh has no use for them.
            Some(KeyMaterial::LoginPassword { .. } | KeyMaterial::String { .. }) => {}
        }
        set("GIT_SSH_COMMAND", &ssh);
        Ok(env)
    }

    /// The configuration that gives the repository's own server its user and password, and no other server: a submodule or
    /// a redirect may name any.
    fn credential(&self, repository: &Repository, role: &str) -> io::Result<String> {
        let (login, password) = match &repository.key {
            // Some servers want any user beside a token.
            Some(KeyMaterial::LoginPassword { login, password }) if login.is_empty() => ("git", password),
            Some(KeyMaterial::LoginPassword { login, password }) => (login.as_str(), password),
            Some(KeyMaterial::String { value }) => ("git", value),
            Some(KeyMaterial::Ssh { .. }) | None => return Ok(String::new()),
        };
        let Some(server) = https_server(&repository.url) else { return Ok(String::new()) };
        // git reads lines of `name=value`: a value of several lines would be read as names.
        let first_line = |text: &str| text.lines().next().unwrap_or_default().trim_end_matches('\r').to_owned();
        let answer = format!("username={}\npassword={}\n", first_line(login), first_line(password.reveal()));
        let file = self.secret(role, "credential", &answer)?;
        let helper = format!("!f() {{ test \"$1\" = get && exec cat {}; }}; f", quoted(&file));
        Ok(format!("[credential {}]\n\thelper = {}\n", in_config(&server), in_config(&helper)))
    }

    fn secret(&self, role: &str, kind: &str, text: &str) -> io::Result<String> {
        let file = self.private.join(format!("git-{role}-{kind}"));
        files::write_new_private(&file, text.as_bytes(), 0o600)?;
        Ok(file.display().to_string())
    }

    /// A script that answers a question of git or ssh; it holds paths and no secret.
    fn script(&self, role: &str, body: &str) -> io::Result<String> {
        let file = self.scripts.join(format!("{role}.askpass"));
        files::write_new_private(&file, format!("#!/bin/sh\n{body}\n").as_bytes(), 0o700)?;
        Ok(file.display().to_string())
    }
}

/// Answers ssh when it asks for the passphrase and nothing else: whether to trust a host is not the key's question, and ssh
/// repeats that one until it is answered with yes or no.
fn passphrase_script(file: &str) -> String {
    format!("case \"$1\" in\n*passphrase*) exec cat {} ;;\n*) exit 1 ;;\nesac", quoted(file))
}

/// The server of an https URL, without the user.
fn https_server(url: &str) -> Option<String> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(format!("https://{host}"))
}

/// Quotes a value for git's configuration.
fn in_config(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

/// Quotes a word for the shell that git hands its commands to.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_belongs_to_one_server() {
        assert_eq!(
            https_server("https://me@git.example.com:8443/a@b").as_deref(),
            Some("https://git.example.com:8443")
        );
        assert_eq!(https_server("https://git.example.com").as_deref(), Some("https://git.example.com"));
        assert_eq!(https_server("ssh://git.example.com/x"), None);
    }

    #[test]
    fn values_are_quoted_for_git() {
        assert_eq!(in_config(r#"a "b" \c"#), r#""a \"b\" \\c""#);
    }
}
