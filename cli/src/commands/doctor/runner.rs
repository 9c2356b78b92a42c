//! What a runner needs: its settings, its files for itself alone, space, programs, a daemon that it believes and that knows it.

use std::path::Path;

use forge_runner::trust::Trust;

use super::{Findings, host, probe};
use crate::settings::{self, Environment, RunnerToStart};

/// The runner's own route that changes nothing: a plugin that nobody has. A known runner is told so, a stranger is refused.
const HARMLESS_PATH: &str = "/plugins/0000000000000000000000000000000000000000000000000000000000000000";

/// Where the daemon's signing key lies, once the runner is registered.
const PINNED_KEY: &str = "daemon.key";

pub(super) async fn look(name: &str, text: Option<&str>, environment: &Environment, findings: &mut Findings) {
    let read = match forge_config::runner_settings(name, text, environment) {
        Ok((read, warnings)) => {
            findings.diagnostics("settings", &warnings);
            read
        }
        Err(mistakes) => return findings.diagnostics("settings", &mistakes),
    };
    let RunnerToStart { settings, registration_token } = match settings::runner_meant(read) {
        Ok(runner) => runner,
        Err(error) => return findings.error("settings", error.to_string(), "correct it in the settings"),
    };
    findings.ok("settings", format!("{name} describes the runner {}", settings.name));

    if !host::private_folder(findings, "tmp_path", &settings.tmp_path) {
        findings.note(
            "permissions",
            format!("tmp_path {} is not there yet", settings.tmp_path.display()),
            "registering makes it",
        );
    }
    let mend = "free space there, set tmp_path to a folder on another disk, or lower disk_reserve: below it the runner takes no work".to_owned();
    host::space(findings, &settings.tmp_path, settings.disk_reserve_bytes, mend);
    programs(findings, &settings.git_client, environment);
    if let Some(path) = settings.ssh_config_path.as_ref().filter(|path| !path.is_file()) {
        let message = format!("ssh_config_path {} is not there", path.display());
        findings.error("programs", message, "write ssh's own configuration there, or take ssh_config_path out");
    }

    let has_token_file = host::secret_file(findings, "token_file", &settings.token_file);
    let has_key = host::secret_file(findings, "private_key_file", &settings.private_key_file);
    let token = match &settings.token {
        Some(token) => Some(token.reveal().to_owned()),
        None => std::fs::read_to_string(&settings.token_file).ok().map(|token| token.trim().to_owned()),
    };
    let token = token.filter(|token| !token.is_empty());
    let answer = probe::ask(findings, &settings.web_host, &settings.trust, HARMLESS_PATH, token.as_deref()).await;
    let how = format!("run `forge runner register{}`", config_flag(name, text));
    if let Trust::SystemRoots = settings.trust
        && answer.is_none()
    {
        findings.note(
            "certificate",
            "neither ca_file nor ca_fingerprint is set",
            "a daemon with a CA of its own prints the fingerprint when it starts",
        );
    }
    if token.is_none() && registration_token.is_some() && !has_token_file {
        findings.note(
            "registration",
            "this runner is not registered yet",
            "its first start registers it, with FORGE_RUNNER_REGISTRATION_TOKEN",
        );
    } else if token.is_none() && !has_token_file {
        findings.error(
            "registration",
            format!("this runner is not registered: there is no token at {}", settings.token_file.display()),
            how,
        );
    } else if token.is_none() {
        findings.error(
            "registration",
            format!("{} holds no token that this user can read", settings.token_file.display()),
            how,
        );
    } else if !has_key {
        findings.error(
            "registration",
            format!("there is no private key at {}: jobs are sealed to it", settings.private_key_file.display()),
            format!("restore it; or `forge runners remove {}`, then {how}", settings.name),
        );
    } else if !settings.tmp_path.join(PINNED_KEY).exists() {
        findings.error(
            "registration",
            format!("the daemon's key is not in tmp_path {}: no job could be believed", settings.tmp_path.display()),
            format!("{how} again"),
        );
    } else if let Some(answer) = answer {
        match answer.status {
            401 | 403 => {
                let detail = answer.problem.map_or_else(String::new, |problem| format!(" ({})", problem.detail));
                findings.error(
                    "registration",
                    format!("the daemon does not know this runner's token{detail}"),
                    format!("{how} again"),
                );
            }
            429 => findings.note(
                "registration",
                "the daemon answers nothing to this address for a while: too many wrong tokens came from it",
                "try again in a minute",
            ),
            _ => findings.ok("registration", format!("the daemon knows this runner, {}", settings.name)),
        }
    }
}

fn programs(findings: &mut Findings, git: &str, environment: &Environment) {
    let search = environment.get("PATH").map(String::as_str);
    match host::program(git, search) {
        Some(path) => findings.ok("programs", format!("git is {}", path.display())),
        None => findings.error(
            "programs",
            format!("there is no program {git}: no repository can be checked out"),
            "install git, or name it with git_client",
        ),
    }
    match host::program("ssh", search) {
        Some(path) => findings.ok("programs", format!("ssh is {}", path.display())),
        None => findings.note(
            "programs",
            "there is no program ssh",
            "install it where repositories or hosts are reached over ssh",
        ),
    }
}

fn config_flag(name: &str, text: Option<&str>) -> String {
    if text.is_some() { format!(" --config {}", Path::new(name).display()) } else { String::new() }
}
