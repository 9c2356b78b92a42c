//! `forge runner setup`: asks for what a runner needs, writes runner.toml, registers where a token is given, and ends with the line
//! that starts it. Every answer is also a flag; with `--yes` nothing is asked.
//!
//! Whether an answer is good is decided by the same reader that will read the file. A token is never shown and never written to it.

mod ask;
mod file;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use forge_api::Secret;
use forge_config::env;

use self::ask::Asker;
use self::file::Answers;
use super::CLIENT_THREADS;
use super::runner::{register, registration_token};
use crate::args::SetupArguments;
use crate::error::{CliError, file_error};
use crate::printer::Printer;
use crate::runtime;
use crate::settings::{self, Environment};

/// What the file is called where none is named.
const FILE: &str = "runner.toml";

/// Where root's runners keep what is theirs.
const TMP_PATH_OF_ROOT: &str = "/var/lib/forge-runner";

/// Where everyone else's do, below the home folder.
const TMP_PATH_BELOW_HOME: &str = ".local/share/forge-runner";

pub(crate) fn run(given: &SetupArguments, config: Option<&Path>, printer: &Printer) -> Result<ExitCode, CliError> {
    let path = config.unwrap_or(Path::new(FILE));
    if path.exists() && !given.force {
        return Err(CliError::failed(format_args!("{} is there already", path.display()))
            .hint("write another file with --config FILE, or this one anew with --force"));
    }
    if given.registration.stdin_registration_token && !given.yes {
        return Err(CliError::usage("stdin cannot hold both the registration token and the answers")
            .hint("add --yes and give the answers as flags, or name a file with --registration-token-file"));
    }
    let environment = settings::environment();
    let mut asker = if given.yes { Asker::silent(printer) } else { Asker::of_stdin(printer) };
    let answers = answers(given, &environment, &mut asker)?;
    let token = token(given, &environment, &mut asker)?;

    let text = answers.text();
    let path = std::path::absolute(path).map_err(|error| file_error("find", path, &error))?;
    prepare_folders(&answers)?;
    file::write(&path, &text)?;
    printer.done(&format!("wrote {}", path.display()));
    let config = quoted(&path);
    match token {
        Some(token) => {
            let runner = settings::runner(Some(&path), &environment, printer)?;
            let registered = runtime::run(CLIENT_THREADS, register(&runner.settings, token));
            let registered = registered.map_err(|error| {
                error.hint_too(format_args!(
                    "{} stays; then: forge runner register --registration-token-file FILE --config {config}",
                    path.display()
                ))
            })?;
            printer.done(&format!("{} is registered", registered.name));
        }
        None => printer.hint(&format!(
            "register it with `forge runner register --registration-token-file FILE --config {config}`"
        )),
    }
    printer.aside("start it with:");
    printer.data(&format!("forge runner --config {config}"));
    Ok(ExitCode::SUCCESS)
}

/// Every answer: from its flag, else asked for, else its default.
fn answers(given: &SetupArguments, environment: &Environment, asker: &mut Asker<'_>) -> Result<Answers, CliError> {
    let preset = |variable: &str| environment.get(variable).filter(|text| !text.is_empty()).cloned();
    let web_host = asker.answer(
        &ask::Question {
            key: "web_host",
            flag: "--web-host",
            text: "The daemon's URL, such as https://forge.example.com:8443",
            default: preset(env::WEB_ROOT),
        },
        given.web_host.clone(),
        |answer| file::check("web_host", answer),
    )?;
    let given_authority = match (&given.ca_file, &given.ca_fingerprint) {
        (Some(file), _) => Some(file.clone()),
        (None, fingerprint) => fingerprint.clone(),
    };
    let authority = asker.answer(
        &ask::Question {
            key: "ca",
            flag: "--ca-file or --ca-fingerprint",
            text: "Its CA: a PEM file, or the fingerprint sha256:... that the daemon prints; empty for a public CA",
            default: preset(env::CA_FILE).or_else(|| preset(env::CA_FINGERPRINT)).or(Some(String::new())),
        },
        given_authority,
        file::check_authority,
    )?;
    let name = asker.answer(
        &ask::Question {
            key: "name",
            flag: "--name",
            text: "The runner's name",
            default: preset(env::RUNNER_NAME).or_else(|| settings::host_name().ok()),
        },
        given.name.clone(),
        |answer| file::check("name", answer),
    )?;
    let tmp_path = asker.answer(
        &ask::Question {
            key: "tmp_path",
            flag: "--tmp-path",
            text: "A folder for workspaces, git cache and log spool",
            default: preset(env::TMP_PATH).or_else(|| tmp_path_default(environment)),
        },
        given.tmp_path.clone(),
        |answer| file::check("tmp_path", answer),
    )?;
    let beside = |name: &str| Some(Path::new(&tmp_path).join(name).display().to_string());
    let (token_default, key_default) = (beside("token"), beside("private.key"));
    let token_file = asker.answer(
        &ask::Question {
            key: "token_file",
            flag: "--token-file",
            text: "Where its token will lie",
            default: preset(env::RUNNER_TOKEN_FILE).or(token_default),
        },
        given.token_file.clone(),
        |answer| file::check("token_file", answer),
    )?;
    let private_key_file = asker.answer(
        &ask::Question {
            key: "private_key_file",
            flag: "--private-key-file",
            text: "Where its private key will lie",
            default: preset(env::RUNNER_PRIVATE_KEY_FILE).or(key_default),
        },
        given.private_key_file.clone(),
        |answer| file::check("private_key_file", answer),
    )?;
    let max_parallel_tasks = asker.answer(
        &ask::Question {
            key: "max_parallel_tasks",
            flag: "--max-parallel-tasks",
            text: "How many tasks at a time, 0 for unlimited",
            default: preset(env::RUNNER_MAX_PARALLEL_TASKS).or(Some("0".to_owned())),
        },
        given.max_parallel_tasks.map(|count| count.to_string()),
        |answer| file::check("max_parallel_tasks", answer),
    )?;
    Ok(Answers { web_host, authority, name, tmp_path, token_file, private_key_file, max_parallel_tasks })
}

/// The registration token where there is one: from its flags, the environment, or a last question that does not show the answer.
fn token(given: &SetupArguments, environment: &Environment, asker: &mut Asker<'_>) -> Result<Option<Secret>, CliError> {
    let source = &given.registration;
    if source.stdin_registration_token || source.registration_token_file.is_some() {
        return registration_token(source, std::io::stdin().lock(), None).map(Some);
    }
    let preset = environment.get(env::RUNNER_REGISTRATION_TOKEN).map(|text| text.trim());
    if let Some(token) = preset.filter(|token| !token.is_empty()) {
        return Ok(Some(Secret::new(token)));
    }
    asker.secret("A registration token (it is not shown); empty to register later")
}

fn tmp_path_default(environment: &Environment) -> Option<String> {
    if rustix::process::geteuid().is_root() {
        return Some(TMP_PATH_OF_ROOT.to_owned());
    }
    let home = environment.get("HOME").filter(|home| !home.is_empty())?;
    Some(Path::new(home).join(TMP_PATH_BELOW_HOME).display().to_string())
}

/// Makes the folders that the answers name, for this user alone, where they are missing.
fn prepare_folders(answers: &Answers) -> Result<(), CliError> {
    let parent = |file: &str| Path::new(file).parent().map(PathBuf::from);
    let files = [&answers.token_file, &answers.private_key_file];
    let folders = std::iter::once(Some(PathBuf::from(&answers.tmp_path))).chain(files.map(|file| parent(file)));
    for folder in folders.flatten().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| {
            file_error("make the folder", &folder, &error)
                .hint("give a folder that this user may write in, or run setup as the user that starts the runner")
        })?;
    }
    Ok(())
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte));
    if is_plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_one_that_a_shell_takes() {
        assert_eq!(quoted(Path::new("/etc/forge/runner.toml")), "/etc/forge/runner.toml");
        assert_eq!(quoted(Path::new("/my files/it's.toml")), r"'/my files/it'\''s.toml'");
    }
}
