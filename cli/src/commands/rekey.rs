//! `forge secret rekey DIR`: encrypts every age value of a tree anew, to the recipients that its secrets.toml lists now. All of them or
//! none: every value is opened and sealed in memory before the first file is written.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use forge_config::{Diagnostic, age_texts};
use forge_daemon::secrets::{open_for_project, seal_for_project};

use super::secret::recipients_of;
use crate::args::Rekey;
use crate::error::{CliError, file_error};
use crate::printer::Printer;
use crate::settings;

/// A file with its new text.
struct Rewritten {
    path: PathBuf,
    text: String,
    values: usize,
}

/// What keeps a tree from being rewritten.
#[derive(Default)]
struct Obstacles {
    diagnostics: Vec<Diagnostic>,
    /// Values that do not open, as `file:line: why`.
    locked: Vec<String>,
}

pub(crate) fn run(arguments: &Rekey, printer: &Printer) -> Result<ExitCode, CliError> {
    let Rekey { directory, identity } = arguments;
    let recipients = recipients_of(directory, printer)?;
    let mut files = Vec::new();
    toml_files(directory, &mut files)?;
    files.sort();
    let mut rewritten = Vec::new();
    let mut obstacles = Obstacles::default();
    for path in files {
        rewritten.extend(rewrite(directory, path, identity, &recipients, &mut obstacles)?);
    }
    let Obstacles { diagnostics, locked } = obstacles;
    if !diagnostics.is_empty() || !locked.is_empty() {
        let drawn = [settings::draw(&diagnostics, printer), locked.join("\n")].concat();
        return Err(CliError::drawn(drawn, "nothing was changed: not every value could be encrypted anew")
            .hint("use the identity whose recipient was listed when the values were encrypted, and mend the files"));
    }
    let values: usize = rewritten.iter().map(|file| file.values).sum();
    for file in &rewritten {
        replace(&file.path, &file.text).map_err(|error| file_error("write", &file.path, &error))?;
    }
    printer.done(&format!(
        "{values} value{} in {} file{} can be opened by the {} recipient{} of secrets.toml",
        plural(values),
        rewritten.len(),
        plural(rewritten.len()),
        recipients.len(),
        plural(recipients.len())
    ));
    printer.hint("whoever was a recipient before still opens what git's history holds: replace the secrets themselves when that matters");
    Ok(ExitCode::SUCCESS)
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Every TOML file below the folder, but for what is no part of a tree. A symlink's file is found where it lies.
fn toml_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), CliError> {
    let unreadable = |error: std::io::Error| file_error("read the folder", folder, &error);
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(unreadable)?);
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if kind.is_dir() {
            toml_files(&path, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    Ok(())
}

/// The file with its values encrypted anew; `None` where it has none, or where something stands in the way.
fn rewrite(
    root: &Path,
    path: PathBuf,
    identity: &Path,
    recipients: &[String],
    obstacles: &mut Obstacles,
) -> Result<Option<Rewritten>, CliError> {
    let mut text = std::fs::read_to_string(&path).map_err(|error| file_error("read", &path, &error))?;
    let relative = path.strip_prefix(root).unwrap_or(&path).display().to_string();
    let values = match age_texts(&relative, &text) {
        Ok(values) => values,
        Err(diagnostics) => {
            obstacles.diagnostics.extend(diagnostics);
            return Ok(None);
        }
    };
    let count = values.len();
    // From the end on, so that the places before stay right.
    for value in values.into_iter().rev() {
        match open_for_project(Some(identity), value.project.as_str(), &value.armored) {
            Ok(secret) => {
                let sealed = seal_for_project(recipients, &value.project, &secret).map_err(CliError::failed)?;
                text.replace_range(value.range, &format!("\"\"\"\n{sealed}\"\"\""));
            }
            Err(error) => obstacles.locked.push(format!("{relative}:{}: {error}", value.line)),
        }
    }
    Ok((count > 0).then_some(Rewritten { path, text, values: count }))
}

/// Writes beside and renames: whoever watches the tree sees the old file or the new one. The file keeps its mode.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".rekey-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
