//! What stands in the workspace for Ansible, and the environment that points to it. Everything that Ansible keeps (its home,
//! its temporary files, roles and collections from Galaxy) lies inside, and goes with the attempt.

use forge_plugin::{Command, Failure, Host, HostError, Job};

/// The callback that writes the recap.
const CALLBACK: &str = include_str!("forge_recap.py");

/// The callback that has ssh read a passphrase.
const ASKPASS: &str = include_str!("forge_askpass.py");

/// Where the callbacks are written, beside the checkout: `git status` of a job stays clean.
const CALLBACK_FOLDER: &str = "forge-ansible/callback";

/// The vars that name the keys' logins.
const LOGINS_FILE: &str = "forge-ansible/logins.yml";

/// Where the callback leaves the recap. `tmp` belongs to the job's user, whoever that is.
pub(crate) const RECAP_FILE: &str = "tmp/forge-recap.json";

/// The most that is read of a project's `ansible.cfg`, in bytes.
const SETTINGS_BYTES_MAX: u32 = 256 * 1024;

/// The prepared workspace.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The checkout: where every program runs, so that its `ansible.cfg` is found.
    pub(crate) checkout: String,
    /// From there to the workspace, with a `/` at the end.
    up: String,
    /// Further folders with callbacks: those of the project's own `ansible.cfg`.
    callbacks: Option<String>,
    color: bool,
}

impl Ground {
    pub(crate) fn prepare(checkout: &str, color: bool, host: &mut dyn Host) -> Result<Self, Failure> {
        host.write(&format!("{CALLBACK_FOLDER}/forge_recap.py"), CALLBACK.as_bytes())?;
        let depth = checkout.split('/').filter(|part| !matches!(*part, "" | ".")).count();
        let settings = match host.read(&format!("{checkout}/ansible.cfg"), 0, SETTINGS_BYTES_MAX) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(HostError::NotFound(_)) => String::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            checkout: checkout.to_owned(),
            up: "../".repeat(depth),
            callbacks: default_setting(&settings, "callback_plugins").map(str::to_owned),
            color,
        })
    }

    /// Has the command's ssh read the passphrase of its key from this file.
    pub(crate) fn with_passphrase(
        &self,
        command: Command,
        file: &str,
        host: &mut dyn Host,
    ) -> Result<Command, Failure> {
        host.write(&format!("{CALLBACK_FOLDER}/forge_askpass.py"), ASKPASS.as_bytes())?;
        Ok(command.env("ANSIBLE_FORGE_PASSPHRASE", file))
    }

    /// Names the logins of the inventory's keys to Ansible, and answers with the file's path as its processes see it. A login's
    /// text stays in the host's own file: Ansible looks it up there. As a variable of the group `all` it is the weakest of
    /// all, so an inventory that names a user for a host has the last word.
    pub(crate) fn logins(&self, job: &Job, host: &mut dyn Host) -> Result<Option<String>, Failure> {
        let mut text = String::new();
        for (role, variable) in [("ssh:login", "ansible_user"), ("become:login", "ansible_become_user")] {
            if let Some(file) = key_file(job, role) {
                let lookup = format!("{{{{ lookup('ansible.builtin.file', {}) }}}}", jinja_text(file));
                text.push_str(&format!("    {variable}: {}\n", serde_json::Value::from(lookup)));
            }
        }
        if text.is_empty() {
            return Ok(None);
        }
        host.write(LOGINS_FILE, format!("all:\n  vars:\n{text}").as_bytes())?;
        Ok(Some(self.path_of(LOGINS_FILE)))
    }

    /// A path of the workspace as the programs see it, which run in the checkout.
    pub(crate) fn path_of(&self, path: &str) -> String {
        format!("{}{path}", self.up)
    }

    /// One of Ansible's programs, in the checkout.
    pub(crate) fn command(&self, program: &str) -> Command {
        let Self { checkout, up, callbacks, color } = self;
        // Paths are relative to the checkout: a guest does not know where the workspace lies, and Ansible resolves them.
        let own = format!("{up}{CALLBACK_FOLDER}");
        let callbacks = callbacks.as_ref().map_or_else(|| own.clone(), |more| format!("{own}:{more}"));
        let command = Command::new(program)
            .cwd(Some(checkout))
            .env("ANSIBLE_HOME", format!("{up}home/.ansible"))
            .env("ANSIBLE_LOCAL_TEMP", format!("{up}tmp/ansible"))
            // A socket's path has little room, and the home's is longer.
            .env("ANSIBLE_SSH_CONTROL_PATH_DIR", format!("{up}tmp/cp"))
            .env("ANSIBLE_CALLBACK_PLUGINS", callbacks)
            .env("ANSIBLE_FORGE_RECAP", format!("{up}{RECAP_FILE}"))
            .env("ANSIBLE_NOCOWS", "1");
        if *color { command.env("ANSIBLE_FORCE_COLOR", "1") } else { command.env("ANSIBLE_NOCOLOR", "1") }
    }
}

/// The file of the key with this role.
pub(crate) fn key_file<'a>(job: &'a Job, role: &str) -> Option<&'a str> {
    job.key_files.iter().find(|pair| pair.key == role).map(|pair| pair.value.as_str())
}

/// A text as Jinja writes it. Ansible takes a backslash for itself, so nothing is escaped; and it looks for templates inside
/// texts too, so no two braces stand side by side.
fn jinja_text(text: &str) -> String {
    let pieces: Vec<String> = text
        .split_inclusive(['\'', '{'])
        .map(|piece| match piece.strip_suffix('\'') {
            Some(before) => format!("'{before}' ~ \"'\""),
            None => format!("'{piece}'"),
        })
        .collect();
    pieces.join(" ~ ")
}

/// A key of `[defaults]` in an `ansible.cfg`: what is passed in the environment would hide it, so it is passed on.
fn default_setting<'a>(settings: &'a str, wanted: &str) -> Option<&'a str> {
    let mut in_defaults = false;
    let mut found = None;
    for line in settings.lines() {
        let line = line.trim_end();
        if line.starts_with('[') {
            in_defaults = line == "[defaults]";
        } else if in_defaults
            && let Some((key, value)) = line.split_once(['=', ':'])
            && key.trim_end().eq_ignore_ascii_case(wanted)
        {
            let value = value.split(" ;").next().unwrap_or_default().trim();
            found = (!value.is_empty()).then_some(value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_found_where_ansible_finds_it() {
        let settings = "[ssh_connection]\ncallback_plugins = not-here\n[defaults]\n# callback_plugins = no\n\
                        inventory=hosts\nCallback_Plugins = ./callbacks:more ; ours\n[galaxy]\ncallback_plugins = nor here\n";
        assert_eq!(default_setting(settings, "callback_plugins"), Some("./callbacks:more"));
        assert_eq!(default_setting("[defaults]\ncallback_plugins =\n", "callback_plugins"), None);
        assert_eq!(default_setting("", "callback_plugins"), None);
    }

    #[test]
    fn a_path_cannot_leave_its_quotes() {
        assert_eq!(jinja_text("/keys/0-login"), "'/keys/0-login'");
        assert_eq!(jinja_text("/it's/{{x"), "'/it' ~ \"'\" ~ 's/{' ~ '{' ~ 'x'");
    }
}
