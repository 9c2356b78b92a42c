//! What git sees when the daemon runs it: a configuration that is ours alone, the key or login of the configuration's repository, and
//! nothing of the user's or the system's own settings. The runner does the same for jobs' repositories (`runner/src/git/access.rs`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use forge_config::{SourceAccess, Transport};

use crate::files::{self, FileError, MODE_PRIVATE};

/// Variables of the daemon's own environment that git sees: where programs are, which CAs are trusted, how to leave the network, and
/// the user's ssh agent.
const PASSED: [&str; 12] = [
    "PATH",
    "TZ",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "NO_PROXY",
    "no_proxy",
    "SSH_AUTH_SOCK",
];

/// Where programs are looked for on a machine that sets no PATH.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What every git here is told. A signature of another format than ssh finds no program that could call it good.
const CONFIG: &str = "[safe]\n\tdirectory = *\n[core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n\tlogAllRefUpdates = false\n\
    [gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[init]\n\tdefaultBranch = main\n[protocol]\n\tversion = 2\n\
    [http]\n\tfollowRedirects = initial\n\tlowSpeedLimit = 1000\n\tlowSpeedTime = 30\n[credential]\n\thelper =\n\
    [gpg]\n\tformat = ssh\n\tprogram = false\n\tminTrustLevel = fully\n[gpg \"openpgp\"]\n\tprogram = false\n\
    [gpg \"x509\"]\n\tprogram = false\n[gpg \"ssh\"]\n\tprogram = ssh-keygen\n";

/// The files of one git source, and where it fetches from.
pub(super) struct Ground<'a> {
    /// The folder of the source's own files.
    pub(super) folder: &'a Path,
    /// The repository's URL.
    pub(super) url: &'a str,
    /// How it is reached.
    pub(super) transport: Transport,
    /// What opens it.
    pub(super) access: &'a SourceAccess,
    /// The keys that commits must be signed by.
    pub(super) allowed_signers_file: Option<&'a Path>,
}

impl Ground<'_> {
    /// Writes git's configuration and answers the whole environment of its processes.
    pub(super) fn prepare(&self) -> Result<BTreeMap<OsString, OsString>, FileError> {
        let home = self.folder.join("home");
        files::make_private_folder(&home)?;
        let config = self.folder.join("gitconfig");
        files::write_atomic(&config, self.config().as_bytes(), MODE_PRIVATE)?;
        let mut environment = BTreeMap::new();
        environment.insert("PATH".into(), PATH_DEFAULT.into());
        for name in PASSED {
            if let Some(value) = std::env::var_os(name) {
                environment.insert(name.into(), value);
            }
        }
        let protocol = match self.transport {
            Transport::Https => "https",
            Transport::Http => "http",
            Transport::Ssh => "ssh",
            Transport::File => "file",
        };
        let mut set = |name: &str, value: OsString| environment.insert(name.into(), value);
        set("LC_ALL", "C".into());
        set("HOME", home.into());
        set(super::clone::MARK, self.folder.into());
        set("GIT_CONFIG_NOSYSTEM", "1".into());
        set("GIT_CONFIG_GLOBAL", config.into());
        set("GIT_TERMINAL_PROMPT", "0".into());
        set("GIT_ALLOW_PROTOCOL", protocol.into());
        set("GIT_NO_REPLACE_OBJECTS", "1".into());
        set("GIT_ADVICE", "0".into());
        set("GIT_SSH_VARIANT", "ssh".into());
        set("GIT_SSH_COMMAND", self.ssh().into());
        Ok(environment)
    }

    fn config(&self) -> String {
        let mut text = CONFIG.to_owned();
        let mut add = |section: &str, key: &str, value: &str| {
            text.push_str(&format!("[{section}]\n\t{key} = {}\n", in_config(value)));
        };
        add("remote \"origin\"", "url", self.url);
        if let Some(signers) = self.allowed_signers_file {
            add("gpg \"ssh\"", "allowedSignersFile", &signers.display().to_string());
        }
        if let Some(ca) = &self.access.ca_file {
            add("http", "sslCAInfo", &ca.display().to_string());
        }
        if let (Some(password), Some((server, user))) = (&self.access.password_file, https_server(self.url)) {
            let user = self.access.username.as_deref().or(user).unwrap_or("git");
            let answer = format!(
                "printf 'username=%s\\npassword=%s\\n' {} \"$(head -n 1 {} | tr -d '\\r')\"",
                quoted(user),
                quoted(&password.display().to_string())
            );
            // The helper reads the file itself: the password lies nowhere else, and a new one counts at once.
            let helper = format!("!f() {{ test \"$1\" = get && {answer}; }}; f");
            add(&format!("credential {}", in_config(&server)), "helper", &helper);
        }
        text
    }

    fn ssh(&self) -> String {
        // No configuration of others: an alias or a proxy command there would decide which server this is.
        let mut ssh = "ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 \
                       -o ServerAliveCountMax=4"
            .to_owned();
        let mut option = |name: &str, file: &Path| {
            let text = format!("{name}=\"{}\"", file.display());
            ssh.push_str(&format!(" -o {}", quoted(&text)));
        };
        match &self.access.known_hosts_file {
            Some(known) => {
                option("UserKnownHostsFile", known);
                ssh.push_str(" -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes");
            }
            None => {
                option("UserKnownHostsFile", &self.folder.join("known_hosts"));
                ssh.push_str(" -o StrictHostKeyChecking=accept-new");
            }
        }
        if let Some(key) = &self.access.ssh_key_file {
            ssh.push_str(&format!(" -i {} -o IdentitiesOnly=yes", quoted(&key.display().to_string())));
        }
        ssh
    }
}

/// The server of an https URL without the user, and the user.
fn https_server(url: &str) -> Option<(String, Option<&str>)> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    Some((format!("https://{host}"), user))
}

/// Quotes a value for git's configuration.
fn in_config(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n"))
}

/// Quotes a word for the shell that git hands its commands to.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_belongs_to_one_server() {
        assert_eq!(
            https_server("https://me@git.example.com:8443/a@b"),
            Some(("https://git.example.com:8443".to_owned(), Some("me")))
        );
        assert_eq!(https_server("https://git.example.com/a"), Some(("https://git.example.com".to_owned(), None)));
        assert_eq!(https_server("ssh://git.example.com/x"), None);
    }

    #[test]
    fn values_are_quoted_for_git_and_the_shell() {
        assert_eq!(in_config("a \"b\" \\c\nd"), r#""a \"b\" \\c\nd""#);
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
