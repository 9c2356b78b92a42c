//! What may be handed to git: URLs, branches and paths inside a repository.
//!
//! A URL is the place where a commit could run a command on the runner (`ext::sh -c ...`, `ssh://-oProxyCommand=...`), so the grammar
//! lists what is allowed and refuses the rest. The daemon checks it when the tree is read, the runner again before it runs git.

use std::fmt;

use crate::address::{is_host, is_loopback, is_number, split_port};
use crate::diagnostic::Code;
use crate::written::sheet::{At, Sheet};

/// The longest URL.
pub const URL_BYTES_MAX: usize = 2_048;

/// The longest branch name: what most file systems take for a reference.
pub const BRANCH_BYTES_MAX: usize = 244;

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `https://`.
    Https,
    /// `http://`, to this machine only.
    Http,
    /// `ssh://` or `user@host:path`.
    Ssh,
    /// `file://` or an absolute path.
    File,
}

/// A URL that may be handed to git.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryUrl {
    url: String,
    transport: Transport,
}

impl RepositoryUrl {
    /// The URL as written.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// How it is reached.
    pub fn transport(&self) -> Transport {
        self.transport
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.url)
    }
}

/// Why a URL is refused. The URL itself is left out: it may carry a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// More than [`URL_BYTES_MAX`].
    #[error("it has more than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// Git would read it as an option.
    #[error("it begins with `-`, which git would read as an option")]
    LeadingDash,
    /// Spaces, line breaks or other control characters.
    #[error("it holds spaces or control characters")]
    Space,
    /// `ext::` and its like.
    #[error("`{0}::` is a remote helper, which runs a program")]
    Helper(String),
    /// A scheme that is not on the list.
    #[error("`{0}://` is no scheme that Forge uses")]
    Scheme(String),
    /// `http://` to another machine, or `git://`.
    #[error("`{0}://` is not protected: anyone on the way could change what is run")]
    Unprotected(&'static str),
    /// The host is missing, or begins with a dash.
    #[error("its host is missing or invalid")]
    Host,
    /// The port is none.
    #[error("its port is no number")]
    Port,
    /// The user is missing, or begins with a dash.
    #[error("its user is missing or invalid")]
    User,
    /// `user:password@`.
    #[error("it holds a password")]
    Password,
    /// The path is missing, begins with a dash, or climbs out.
    #[error("its path is missing or invalid")]
    Path,
    /// A path that begins nowhere.
    #[error("it is neither a URL nor an absolute path")]
    Relative,
}

impl UrlError {
    /// What to write instead.
    pub fn hint(&self) -> String {
        match self {
            Self::Password => {
                "take the password out, replace it where it is valid, and name a key: ssh_key = \"...\"".to_owned()
            }
            Self::Unprotected(_) => "write https:// or ssh://".to_owned(),
            Self::Relative => {
                "write https://host/path, ssh://user@host/path, user@host:path, file:///path or /path".to_owned()
            }
            Self::Empty
            | Self::TooLong
            | Self::LeadingDash
            | Self::Space
            | Self::Helper(_)
            | Self::Scheme(_)
            | Self::Host
            | Self::Port
            | Self::User
            | Self::Path => {
                "write it as https://host/path, ssh://user@host/path, user@host:path, file:///path or /path".to_owned()
            }
        }
    }
}

/// Checks a repository's URL: `https://`, `http://` to loopback, `ssh://`, `user@host:path`, `file://` or an absolute path.
pub fn repository_url(text: &str) -> Result<RepositoryUrl, UrlError> {
    if text.is_empty() {
        return Err(UrlError::Empty);
    }
    if text.len() > URL_BYTES_MAX {
        return Err(UrlError::TooLong);
    }
    if text.starts_with('-') {
        return Err(UrlError::LeadingDash);
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(UrlError::Space);
    }
    // Git takes `helper::address` before it looks for anything else, so this comes before schemes too.
    if let Some((helper, _)) = text.split_once("::")
        && helper.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c))
    {
        return Err(UrlError::Helper(helper.to_owned()));
    }
    let transport = match text.split_once("://") {
        Some((scheme, rest)) => of_scheme(scheme, rest)?,
        None if text.starts_with('/') => path(text).map(|()| Transport::File)?,
        None => scp_like(text)?,
    };
    Ok(RepositoryUrl { url: text.to_owned(), transport })
}

fn of_scheme(scheme: &str, rest: &str) -> Result<Transport, UrlError> {
    let (authority, path_text) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (user, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (Some(user), address),
        None => (None, authority),
    };
    let transport = match scheme {
        "file" if authority.is_empty() => return path(path_text).map(|()| Transport::File),
        "file" => return Err(UrlError::Host),
        "https" => Transport::Https,
        "http" => Transport::Http,
        "ssh" => Transport::Ssh,
        "git" => return Err(UrlError::Unprotected("git")),
        other => return Err(UrlError::Scheme(other.to_owned())),
    };
    if let Some(user) = user {
        if user.contains(':') {
            return Err(UrlError::Password);
        }
        self::user(user)?;
    }
    let (host, port) = split_port(address).ok_or(UrlError::Host)?;
    if !is_host(host) {
        return Err(UrlError::Host);
    }
    if port.is_some_and(|port| !is_number(port)) {
        return Err(UrlError::Port);
    }
    if transport == Transport::Http && !is_loopback(host) {
        return Err(UrlError::Unprotected("http"));
    }
    if path_text.len() < 2 {
        return Err(UrlError::Path);
    }
    path(path_text).map(|()| transport)
}

/// `user@host:path`, as ssh's copy program takes it. Git reads it so only when no `/` stands before the colon.
fn scp_like(text: &str) -> Result<Transport, UrlError> {
    let (address, path_text) = text.split_once(':').ok_or(UrlError::Relative)?;
    if address.contains('/') {
        return Err(UrlError::Relative);
    }
    let (user, host) = address.split_once('@').ok_or(UrlError::User)?;
    self::user(user)?;
    if !is_host(host) {
        return Err(UrlError::Host);
    }
    if path_text.is_empty() || path_text.starts_with(['-', ':']) {
        return Err(UrlError::Path);
    }
    path(path_text).map(|()| Transport::Ssh)
}

fn user(user: &str) -> Result<(), UrlError> {
    let valid = !user.is_empty() && !user.starts_with('-');
    match valid && user.chars().all(|c| c.is_ascii_alphanumeric() || "-._+~%".contains(c)) {
        true => Ok(()),
        false => Err(UrlError::User),
    }
}

/// A path on the other side: it must not climb, and no part of it may look like an option to the program that serves it.
fn path(path: &str) -> Result<(), UrlError> {
    let valid = !path.is_empty()
        && !path.contains("::")
        && !path.contains(['\\', '"', '\'', '`', '$', ';', '|', '<', '>'])
        && path.split('/').all(|part| part != ".." && !part.starts_with('-'));
    if valid { Ok(()) } else { Err(UrlError::Path) }
}

/// Why a branch's name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BranchError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// More than [`BRANCH_BYTES_MAX`].
    #[error("it has more than {BRANCH_BYTES_MAX} bytes")]
    TooLong,
    /// Git would read it as an option.
    #[error("it begins with `-`, which git would read as an option")]
    LeadingDash,
    /// A character that no reference holds.
    #[error("git allows no {0:?} in it")]
    Character(char),
    /// `..`, `@{`, `//`, a dot or slash at a wrong end, or `.lock`.
    #[error("git allows no {0:?} there")]
    Sequence(&'static str),
}

/// Checks a branch's name by git's own rules (`git check-ref-format --branch`).
pub fn branch_name(text: &str) -> Result<(), BranchError> {
    if text.is_empty() {
        return Err(BranchError::Empty);
    }
    if text.len() > BRANCH_BYTES_MAX {
        return Err(BranchError::TooLong);
    }
    if text.starts_with('-') {
        return Err(BranchError::LeadingDash);
    }
    let wrong = |c: &char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(*c);
    if let Some(character) = text.chars().find(wrong) {
        return Err(BranchError::Character(character));
    }
    for sequence in ["..", "@{", "//"] {
        if text.contains(sequence) {
            return Err(BranchError::Sequence(sequence));
        }
    }
    if text == "@" || text == "HEAD" {
        return Err(BranchError::Sequence(if text == "@" { "@" } else { "HEAD" }));
    }
    if text.starts_with('/') || text.ends_with('/') {
        return Err(BranchError::Sequence("/"));
    }
    if text.ends_with('.') || text.split('/').any(|part| part.starts_with('.')) {
        return Err(BranchError::Sequence("."));
    }
    match text.split('/').any(|part| part.ends_with(".lock")) {
        true => Err(BranchError::Sequence(".lock")),
        false => Ok(()),
    }
}

/// The URL of a key, or `None` with the mistake noted.
pub(crate) fn checked_url(key: &str, written: &At<String>, sheet: &Sheet) -> Option<String> {
    match repository_url(&written.value) {
        Ok(url) => Some(url.url),
        Err(error) => {
            let message = format!("`{key}` is refused: {error}");
            sheet.error(written.span, Code::RepositoryUrl, message, Some(error.hint()));
            None
        }
    }
}

/// The branch of a key: `Some(None)` when there is none, `None` when it is refused, with the mistake noted.
pub(crate) fn branch(key: &str, written: Option<&At<String>>, sheet: &Sheet) -> Option<Option<String>> {
    let Some(branch) = written else { return Some(None) };
    match branch_name(&branch.value) {
        Ok(()) => Some(Some(branch.value.clone())),
        Err(error) => {
            let message = format!("`{key}` is no branch name: {error}");
            sheet.error(branch.span, Code::Branch, message, Some("write it as \"main\"".to_owned()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_git_may_be_given() {
        for (url, transport) in [
            ("https://git.example.com/ops/app.git", Transport::Https),
            ("https://me@git.example.com:8443/app", Transport::Https),
            ("http://127.0.0.1:3000/app.git", Transport::Http),
            ("http://[::1]/app.git", Transport::Http),
            ("ssh://git@git.example.com/app.git", Transport::Ssh),
            ("ssh://git@[2001:db8::1]:22/app.git", Transport::Ssh),
            ("git@git.example.com:ops/app.git", Transport::Ssh),
            ("git@git.example.com:~ops/app.git", Transport::Ssh),
            ("file:///srv/git/app.git", Transport::File),
            ("/srv/git/app.git", Transport::File),
        ] {
            assert_eq!(repository_url(url).map(|url| url.transport()), Ok(transport), "{url}");
        }
    }

    #[test]
    fn what_git_may_not_be_given() {
        for (url, error) in [
            ("", UrlError::Empty),
            ("--upload-pack=touch /tmp/x", UrlError::LeadingDash),
            ("-oProxyCommand=x", UrlError::LeadingDash),
            ("ext::sh -c touch% /tmp/x", UrlError::Space),
            ("ext::sh", UrlError::Helper("ext".into())),
            ("fd::17", UrlError::Helper("fd".into())),
            ("file::/srv", UrlError::Helper("file".into())),
            ("::x", UrlError::Helper(String::new())),
            ("https://a/b\nc", UrlError::Space),
            ("https://a/b\u{1b}", UrlError::Space),
            ("git://a/b", UrlError::Unprotected("git")),
            ("http://a/b", UrlError::Unprotected("http")),
            ("http://127.0.0.1.example.com/b", UrlError::Unprotected("http")),
            ("ftp://a/b", UrlError::Scheme("ftp".into())),
            ("HTTPS://a/b", UrlError::Scheme("HTTPS".into())),
            ("ssh://-oProxyCommand=x/b", UrlError::Host),
            ("ssh://git@-oProxyCommand/b", UrlError::Host),
            ("ssh://-oProxy@a/b", UrlError::User),
            ("ssh://a:22x/b", UrlError::Port),
            ("https://me:token@a/b", UrlError::Password),
            ("https://", UrlError::Host),
            ("https://a", UrlError::Path),
            ("https://a/", UrlError::Path),
            ("https://a/../b", UrlError::Path),
            ("https://a/-b", UrlError::Path),
            ("git@-a:b", UrlError::Host),
            ("git@a:", UrlError::Path),
            ("git@a:-b", UrlError::Path),
            ("@a:b", UrlError::User),
            ("a:b", UrlError::User),
            ("file://host/b", UrlError::Host),
            ("file://", UrlError::Path),
            ("app.git", UrlError::Relative),
            ("./app.git", UrlError::Relative),
            ("../app", UrlError::Relative),
            ("/srv/../etc", UrlError::Path),
            ("/srv/$(x)", UrlError::Path),
        ] {
            assert_eq!(repository_url(url).map(|_| ()), Err(error), "{url:?}");
        }
        assert_eq!(repository_url(&format!("/{}", "a".repeat(URL_BYTES_MAX))), Err(UrlError::TooLong));
    }

    #[test]
    fn branches_follow_gits_rules() {
        for good in ["main", "feature/a-b", "v1.0", "ü"] {
            assert_eq!(branch_name(good), Ok(()), "{good}");
        }
        for wrong in [
            "",
            "-b",
            "--upload-pack=x",
            "a b",
            "a..b",
            "a~1",
            "a:b",
            "@",
            "HEAD",
            "a@{1}",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a/.b",
            "a.",
            "a.lock",
            "a\n",
        ] {
            assert!(branch_name(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_url_panics_and_none_smuggles_an_option(text in "(-|ssh://|ext::|[a-z]{0,3}@|/|:|\\PC){0,12}") {
            let _ = branch_name(&text);
            if let Ok(url) = repository_url(&text) {
                let url = url.as_str();
                let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
                let authority = rest.split('/').next().unwrap_or_default();
                prop_assert!(!url.starts_with('-') && !authority.starts_with('-') && !authority.contains("@-"));
                prop_assert!(!url.contains("::") || url.contains("://["));
            }
        }
    }
}
