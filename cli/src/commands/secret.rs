//! `forge secret`: an identity for the daemon, values encrypted for one project of a tree, and back. Values come on stdin
//! and never stand in a command line, where every user of the machine could read them.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use forge_api::Secret;
use forge_config::{check_recipient, tree_recipients};
use forge_daemon::secrets::{SECRET_BYTES_MAX, SecretError, new_identity, open_for_project, seal_for_project};

use crate::args::{Decrypt, Encrypt, Keygen, SecretCommand};
use crate::error::{CliError, file_error};
use crate::printer::Printer;
use crate::settings;

/// The tree's list of recipients.
const SECRETS_FILE: &str = "secrets.toml";

/// How often base64 and TOML make a value longer than it is; what is longer on stdin holds no value of ours.
const SEALED_GROWTH: u64 = 4;

pub(crate) fn run(command: SecretCommand, printer: &Printer) -> Result<ExitCode, CliError> {
    match command {
        SecretCommand::Keygen(arguments) => keygen(&arguments, printer),
        SecretCommand::Encrypt(arguments) => encrypt(arguments, printer),
        SecretCommand::Decrypt(arguments) => decrypt(&arguments, printer),
        SecretCommand::Rekey(arguments) => super::rekey::run(&arguments, printer),
    }
}

fn keygen(arguments: &Keygen, printer: &Printer) -> Result<ExitCode, CliError> {
    let (identity, recipient) = new_identity();
    let text = format!("# recipient: {recipient}\n{}\n", identity.reveal());
    let Some(path) = &arguments.output else {
        printer.data(text.trim_end());
        printer.aside(&format!("recipient: {recipient}"));
        return Ok(ExitCode::SUCCESS);
    };
    write_new_private(path, text.as_bytes()).map_err(|error| {
        let shown = file_error("write", path, &error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => shown.hint(
                "it is never overwritten: values that were encrypted for it would be lost; name another file, or move it away",
            ),
            _ => shown.hint("name a file in a folder that exists and that you may write"),
        }
    })?;
    printer.data(&recipient);
    printer.aside(&format!("The identity is in {}: keep a copy where secrets are kept.", path.display()));
    printer.aside(&format!("forge.toml:\n  [secrets]\n  identity_file = \"{}\"", path.display()));
    printer.aside(&format!("{SECRETS_FILE}, at the root of the tree:\n  recipients = [\"{recipient}\"]"));
    Ok(ExitCode::SUCCESS)
}

/// Makes a file that nobody else may read; one that is there stays.
fn write_new_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn encrypt(arguments: Encrypt, printer: &Printer) -> Result<ExitCode, CliError> {
    let Encrypt { project, recipients, directory } = arguments;
    for recipient in &recipients {
        // The text is not repeated: it may be an identity.
        check_recipient(recipient)
            .map_err(|error| CliError::usage(format_args!("--recipient: {error}")).hint(error.hint()))?;
    }
    let recipients = if recipients.is_empty() { recipients_of(&directory, printer)? } else { recipients };
    let text = stdin_text(SECRET_BYTES_MAX, "the value", printer)?;
    // Editors and `echo` end a text with a line feed that is no part of a password; so does a file that a secret names.
    let value = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if value.is_empty() {
        return Err(CliError::failed("stdin holds no value")
            .hint(format_args!("write the value to stdin: forge secret encrypt --project {project} < FILE")));
    }
    let armored = seal_for_project(&recipients, &project, &Secret::new(value)).map_err(CliError::failed)?;
    printer.data(&format!("{{ age = \"\"\"\n{armored}\"\"\" }}"));
    printer.aside(&format!(
        "Paste it as the value of a secret of project {project}, as in `password = {{ age = ... }}`; it opens in no other project."
    ));
    Ok(ExitCode::SUCCESS)
}

/// The recipients that a tree lists.
pub(super) fn recipients_of(directory: &Path, printer: &Printer) -> Result<Vec<String>, CliError> {
    let path = directory.join(SECRETS_FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        file_error("read", &path, &error).hint(
            "name the tree's folder, whose secrets.toml says `recipients = [\"age1...\"]`, or a recipient with --recipient",
        )
    })?;
    tree_recipients(&path.display().to_string(), &text)
        .map_err(|mistakes| CliError::drawn(settings::draw(&mistakes, printer), "the recipients cannot be read"))
}

fn decrypt(arguments: &Decrypt, printer: &Printer) -> Result<ExitCode, CliError> {
    let Decrypt { identity, project } = arguments;
    let text = stdin_text(SECRET_BYTES_MAX * SEALED_GROWTH, "the encrypted value", printer)?;
    let opened = open_for_project(Some(identity), project.as_str(), &text).map_err(|error| refused(&error))?;
    printer.data_bytes(opened.reveal().as_bytes());
    if std::io::stdout().is_terminal() {
        printer.data("");
    }
    Ok(ExitCode::SUCCESS)
}

/// The errors of the daemon in the words of who decrypts by hand.
fn refused(error: &SecretError) -> CliError {
    match error {
        SecretError::Locked => CliError::failed("the identity does not open the value").hint(
            "it was encrypted to others, or is damaged: use the identity whose recipient secrets.toml listed then",
        ),
        SecretError::OtherProject { project } => {
            CliError::failed(format_args!("the value was encrypted for another project than {project}"))
                .hint("name the project in whose folder it stood with --project")
        }
        SecretError::NoProject { .. } => CliError::failed("the value carries no project inside")
            .hint("`forge secret encrypt` did not write it; `age --decrypt` opens it"),
        SecretError::Armor => CliError::failed("stdin holds no whole age value")
            .hint("pass all of it, from -----BEGIN AGE ENCRYPTED FILE----- to -----END AGE ENCRYPTED FILE-----"),
        SecretError::IdentityFile { .. } | SecretError::BadIdentity { .. } => {
            CliError::failed(error).hint("--identity names the file that `forge secret keygen --output FILE` wrote")
        }
        SecretError::NoIdentity
        | SecretError::NotAllowed { .. }
        | SecretError::Unreadable { .. }
        | SecretError::NoText { .. } => CliError::failed(error),
    }
}

fn stdin_text(bytes_max: u64, what: &str, printer: &Printer) -> Result<String, CliError> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        printer.aside(&format!(
            "Type {what} (it shows here), then Enter and Ctrl-D; a pipe or `< FILE` keeps it off the screen."
        ));
    }
    let mut bytes = Vec::new();
    stdin
        .lock()
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::failed(format_args!("cannot read stdin: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(CliError::failed(format_args!("{what} on stdin is longer than {bytes_max} bytes"))
            .hint("a secret is a password, a token or a key; keep larger data elsewhere and its key here"));
    }
    String::from_utf8(bytes).map_err(|_| {
        CliError::failed(format_args!("{what} on stdin is no UTF-8 text")).hint("encode it, for instance with base64")
    })
}
