//! Becoming known to the daemon, and leaving it: the key pair, the token file and the daemon's pinned key.
//!
//! Everything that could fail on this machine is tried before the daemon is asked: a registration that the daemon counts
//! and whose token is then lost would be the worst of both. Doing it again keeps the key pair, which is how the daemon
//! recognises the same runner.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{RegisterRequest, RegisterResponse, Secret};

use crate::client::{CallError, Client, ClientError};
use crate::files;
use crate::pin;
use crate::settings::{Settings, SettingsError, folder_of};
use crate::trust::TrustError;

/// The most bytes that a token or key file holds.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// What the daemon made of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The runner's name.
    pub name: String,
    /// The project that it belongs to; `None` for a global one.
    pub project: Option<String>,
    /// The tags that it was given.
    pub tags: Vec<String>,
    /// What keeps it from taking work for now, in words.
    pub disabled: Option<String>,
}

/// Why a registration failed.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A folder that must take a file does not.
    #[error("{what} = {path:?}: its folder {folder:?} {reason}")]
    Folder {
        /// The setting's name.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A file is there and cannot be used.
    #[error("{what} = {path:?}: {reason}")]
    File {
        /// The setting's name.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The registration token is not accepted.
    #[error(
        "the daemon does not accept this registration token: {detail}; {}",
        hint.as_deref().unwrap_or("check it against registration-tokens/ in the tree or runner_registration_token_file of the daemon")
    )]
    Token {
        /// The daemon's words.
        detail: String,
        /// What the daemon says to do.
        hint: Option<String>,
    },
    /// The name belongs to another runner.
    #[error("{detail}{}", hint_of(hint.as_deref()))]
    NameTaken {
        /// The daemon's words.
        detail: String,
        /// What the daemon says to do.
        hint: Option<String>,
    },
    /// The daemon refuses for another reason.
    #[error("{detail}{}", hint_of(hint.as_deref()))]
    Refused {
        /// The daemon's words.
        detail: String,
        /// What the daemon says to do.
        hint: Option<String>,
    },
    /// The daemon does not answer.
    #[error("{reason}")]
    Unreachable {
        /// Why, and what to do.
        reason: String,
    },
    /// The daemon's answer makes no sense.
    #[error("the daemon's answer to the registration cannot be used: {reason}")]
    Answer {
        /// What is wrong with it.
        reason: String,
    },
}

/// Why leaving failed.
#[derive(Debug, thiserror::Error)]
pub enum UnregisterError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// There is nothing to leave.
    #[error("there is no runner token at {path:?}: this runner is not registered")]
    NotRegistered {
        /// Where the token would lie.
        path: PathBuf,
    },
    /// A file is there and cannot be used.
    #[error("token_file = {path:?}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The daemon refuses.
    #[error("{detail}{}", hint_of(hint.as_deref()))]
    Refused {
        /// The daemon's words.
        detail: String,
        /// What the daemon says to do.
        hint: Option<String>,
    },
    /// The daemon does not answer.
    #[error("{reason}")]
    Unreachable {
        /// Why, and what to do.
        reason: String,
    },
}

fn hint_of(hint: Option<&str>) -> String {
    hint.map(|hint| format!("; {hint}")).unwrap_or_default()
}

impl From<ClientError> for RegisterError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Settings(error) => Self::Settings(error),
            ClientError::Trust(error) => Self::Trust(error),
        }
    }
}

impl From<ClientError> for UnregisterError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Settings(error) => Self::Settings(error),
            ClientError::Trust(error) => Self::Trust(error),
        }
    }
}

impl From<CallError> for RegisterError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unreachable(reason) | CallError::Garbled(reason) | CallError::TooLarge(reason) => {
                Self::Unreachable { reason }
            }
            CallError::Problem(problem) => match problem.status {
                401 | 403 => Self::Token { detail: problem.detail, hint: problem.hint },
                409 => Self::NameTaken { detail: problem.detail, hint: problem.hint },
                _ => Self::Refused { detail: problem.detail, hint: problem.hint },
            },
        }
    }
}

pub(crate) async fn register(settings: &Settings, token: Secret) -> Result<Registered, RegisterError> {
    settings.check()?;
    let client = Client::new(settings)?;
    check_folder("token_file", &settings.token_file)?;
    check_folder("private_key_file", &settings.private_key_file)?;
    let pinned = settings.signing_key_file();
    files::make_private_folder(&settings.tmp_path).map_err(|error| RegisterError::Folder {
        what: "tmp_path",
        path: settings.tmp_path.clone(),
        folder: settings.tmp_path.clone(),
        reason: format!("cannot be made or entered: {error}"),
    })?;
    check_folder("tmp_path", &pinned)?;
    let identity = key_pair(&settings.private_key_file)?;
    // One that is damaged is none: registering again is what mends it.
    let known = read_secret_file(&pinned).ok().flatten().and_then(|pin| STANDARD.decode(pin.reveal()).ok());
    // The daemon recognises a runner that registers again by its present token or by its key, so the key is always sent.
    let request = RegisterRequest {
        name: settings.name.clone(),
        public_key: identity.to_public().to_string(),
        version: settings.version.clone(),
        max_parallel_tasks: settings.max_parallel_tasks,
        one_off: settings.one_off,
        signing_key: known.as_deref().map(pin::shown).unwrap_or_default(),
    };
    let answer = client.register(&token, &request).await?;
    check_pin(&pinned, known.as_deref(), &answer)?;
    let wrong = |reason: &str| RegisterError::Answer { reason: reason.to_owned() };
    let signing_key = STANDARD.decode(&answer.signing_key).map_err(|_| wrong("the signing key is no base64"))?;
    if signing_key.len() != ring::signature::ED25519_PUBLIC_KEY_LEN {
        return Err(wrong("the signing key is no Ed25519 key"));
    }
    let sealed = answer.sealed_token_bytes().ok_or_else(|| wrong("the token is no base64"))?;
    let opened = crate::open::unseal(&identity, &sealed).map_err(|error| wrong(&error.to_string()))?;
    let runner_token = String::from_utf8(opened).map_err(|_| wrong("the token is no text"))?;
    // The pin comes first: a runner with a token and without a pin could not believe any job.
    let save = |what, path: &Path, bytes: &[u8]| {
        files::replace_private(path, bytes).map_err(|error| RegisterError::File {
            what,
            path: path.to_owned(),
            reason: format!("cannot be written: {error}"),
        })
    };
    save("tmp_path", &pinned, format!("{}\n", answer.signing_key).as_bytes())?;
    save("token_file", &settings.token_file, format!("{runner_token}\n").as_bytes())?;
    Ok(Registered { name: answer.name, project: answer.project, tags: answer.tags, disabled: answer.disabled })
}

pub(crate) async fn unregister(settings: &Settings) -> Result<(), UnregisterError> {
    settings.check()?;
    let client = Client::new(settings)?;
    let file = &settings.token_file;
    let wrong = |reason: String| UnregisterError::File { path: file.clone(), reason };
    let token = match &settings.token {
        Some(token) => token.clone(),
        None => read_secret_file(file)
            .map_err(wrong)?
            .ok_or_else(|| UnregisterError::NotRegistered { path: file.clone() })?,
    };
    match client.unregister(&token).await {
        Ok(()) => {}
        // Removed on the daemon's side already: what is left is the file.
        Err(CallError::Problem(problem)) if matches!(problem.status, 401 | 404 | 410) => {
            tracing::info!(detail = problem.detail, "the daemon did not know this runner any more");
        }
        Err(CallError::Problem(problem)) => {
            return Err(UnregisterError::Refused { detail: problem.detail, hint: problem.hint });
        }
        Err(CallError::Unreachable(reason) | CallError::Garbled(reason) | CallError::TooLarge(reason)) => {
            return Err(UnregisterError::Unreachable { reason });
        }
    }
    files::remove(file).map_err(|error| wrong(format!("cannot be removed: {error}")))
}

/// Refuses another signing key than the pinned one, unless the pinned one vouches for it.
fn check_pin(path: &Path, known: Option<&[u8]>, answer: &RegisterResponse) -> Result<(), RegisterError> {
    let Some(known) = known else { return Ok(()) };
    let led_to = pin::follow(known, &answer.key_changes).ok().flatten();
    if pin::shown(led_to.as_deref().unwrap_or(known)) == answer.signing_key {
        return Ok(());
    }
    Err(RegisterError::File {
        what: "tmp_path",
        path: path.to_owned(),
        reason: "holds the key that the daemon signed jobs with, and it signs with another one now that the old one does not vouch for. \
                 If the daemon was set up anew, or lost its keys, remove this file and register again; else somebody may stand between"
            .to_owned(),
    })
}

/// Refuses a folder that is missing or takes no file, by making one there.
fn check_folder(what: &'static str, file: &Path) -> Result<(), RegisterError> {
    let folder = folder_of(file);
    let wrong =
        |reason: String| RegisterError::Folder { what, path: file.to_owned(), folder: folder.to_owned(), reason };
    match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => return Err(wrong("is no folder".to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(wrong(format!("does not exist: make it with `mkdir -p {}`", folder.display())));
        }
        Err(error) => return Err(wrong(format!("cannot be entered: {error}"))),
    }
    if fs::symlink_metadata(file).is_ok_and(|found| found.is_dir()) {
        return Err(wrong("holds a folder of that name: name a file".to_owned()));
    }
    tempfile::Builder::new().prefix(".forge-").tempfile_in(folder).map(drop).map_err(|error| {
        let user = rustix::process::geteuid().as_raw();
        wrong(format!("cannot be written by this user (uid {user}): {error}"))
    })
}

/// The key pair in `path`, made when there is none.
fn key_pair(path: &Path) -> Result<Identity, RegisterError> {
    let wrong = |reason: String| RegisterError::File { what: "private_key_file", path: path.to_owned(), reason };
    if let Some(text) = read_secret_file(path).map_err(wrong)? {
        return parse_identity(text.reveal()).map_err(wrong);
    }
    let identity = Identity::generate();
    let text = format!("# public key: {}\n{}\n", identity.to_public(), identity.to_string().expose_secret());
    files::replace_private(path, text.as_bytes()).map_err(|error| wrong(format!("cannot be written: {error}")))?;
    Ok(identity)
}

/// Reads an age identity, with or without comments around it.
pub(crate) fn parse_identity(text: &str) -> Result<Identity, String> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let line = line.ok_or("it holds no key: remove it, and register again to make one")?;
    Identity::from_str(line)
        .map_err(|error| format!("it holds no age identity (AGE-SECRET-KEY-1...): {error}; restore it, or remove it and register under another name"))
}

/// The text of a 0600 file without the space around it; `None` when there is no such file.
pub(crate) fn read_secret_file(path: &Path) -> Result<Option<Secret>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    if let Some(reason) = files::readable_by_others(path, &file).map_err(|error| error.to_string())? {
        return Err(reason);
    }
    let mut text = String::new();
    file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty: remove it, and register again".to_owned());
    }
    Ok(Some(Secret::new(text)))
}
