//! Age values of the tree. Each carries its project inside, so that a copy in another project's file opens nothing:
//!
//! ```text
//! forge secret v1\n
//! PROJECT\n
//! VALUE          (as it is, to the end)
//! ```
//!
//! encrypted with age to the recipients of `secrets.toml` and armoured. The `age` program reads and writes the same format.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use age::secrecy::ExposeSecret as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::Secret;
use forge_config::{AgeCause, AgeRefusal, AgeValues, Name};

use super::resolve::SecretError;
use super::seal::SealError;

const ENVELOPE: &str = "forge secret v1\n";
const ARMOR_BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const ARMOR_END: &str = "-----END AGE ENCRYPTED FILE-----";

/// How many characters stand on a line of armour.
const ARMOR_LINE_CHARS: usize = 64;

/// A new age identity, and the recipient to which values are encrypted for it.
pub fn new_identity() -> (Secret, String) {
    let identity = age::x25519::Identity::generate();
    (Secret::new(identity.to_string().expose_secret()), identity.to_public().to_string())
}

/// Encrypts a value for one project of a tree, as `{ age = "..." }` takes it, so that each of the recipients (`age1...`) can
/// open it.
///
/// # Errors
/// One of the recipients is none, or there are none.
pub fn seal_for_project(recipients: &[String], project: &Name, value: &Secret) -> Result<String, SealError> {
    let recipients: Vec<_> =
        recipients.iter().map(|recipient| super::seal::recipient(recipient)).collect::<Result<_, _>>()?;
    let age = |error: String| SealError::Age(error);
    let encryptor = age::Encryptor::with_recipients(recipients.iter().map(|one| one as &dyn age::Recipient))
        .map_err(|error| age(error.to_string()))?;
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed).map_err(|error| age(error.to_string()))?;
    let plain = format!("{ENVELOPE}{project}\n{}", value.reveal());
    writer.write_all(plain.as_bytes()).map_err(|error| age(error.to_string()))?;
    writer.finish().map_err(|error| age(error.to_string()))?;
    Ok(armored(&sealed))
}

fn armored(sealed: &[u8]) -> String {
    let mut text = format!("{ARMOR_BEGIN}\n");
    for (index, letter) in STANDARD.encode(sealed).chars().enumerate() {
        if index > 0 && index % ARMOR_LINE_CHARS == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text.push('\n');
    text.push_str(ARMOR_END);
    text.push('\n');
    text
}

/// Opens an age value with the identities of a file, when it was encrypted for this project. It blocks for as long as a small
/// file takes.
///
/// # Errors
/// The file holds no identity, none of them opens the value, or it belongs to another project.
pub fn open_for_project(identity_file: Option<&Path>, project: &str, armored: &str) -> Result<Secret, SecretError> {
    let path = identity_file.ok_or(SecretError::NoIdentity)?;
    // Read anew each time: an identity that was added or exchanged counts at once.
    let identities = identities(path)?;
    let sealed = unarmor(armored).ok_or(SecretError::Armor)?;
    let opened =
        identities.iter().find_map(|identity| age::decrypt(identity, &sealed).ok()).ok_or(SecretError::Locked)?;
    let text = String::from_utf8(opened).map_err(|_| SecretError::NoText { what: "the age value".to_owned() })?;
    let inside = text.strip_prefix(ENVELOPE).and_then(|rest| rest.split_once('\n'));
    match inside {
        Some((inside, value)) if inside == project => Ok(Secret::new(value)),
        Some(_) => Err(SecretError::OtherProject { project: project.to_owned() }),
        None => Err(SecretError::NoProject { project: project.to_owned() }),
    }
}

fn identities(path: &Path) -> Result<Vec<age::x25519::Identity>, SecretError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| SecretError::IdentityFile { path: path.to_owned(), source })?;
    let found: Result<Vec<_>, _> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(age::x25519::Identity::from_str)
        .collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| SecretError::BadIdentity { path: path.to_owned() })
}

/// The age file inside its armour. What stands around the armour, such as the TOML that `forge secret encrypt` prints, is
/// passed over.
fn unarmor(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(ARMOR_BEGIN)?;
    let (body, _) = rest.split_once(ARMOR_END)?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

/// The daemon's identity as the check of a tree asks it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The file, where forge.toml names one.
    pub(crate) file: Option<PathBuf>,
}

impl AgeValues for Identity {
    fn check(&self, project: &Name, armored: &str) -> Result<(), AgeRefusal> {
        let Err(error) = open_for_project(self.file.as_deref(), project.as_str(), armored) else { return Ok(()) };
        let encrypt = format!("encrypt it anew with `forge secret encrypt --project {project}`");
        let (cause, message, hint) = match &error {
            SecretError::NoIdentity => (
                AgeCause::Identity,
                "the daemon has no age identity".to_owned(),
                "set `identity_file` under [secrets] of forge.toml; `forge secret keygen` makes one".to_owned(),
            ),
            SecretError::IdentityFile { .. } | SecretError::BadIdentity { .. } => (
                AgeCause::Identity,
                error.to_string(),
                "mend the file that `identity_file` of forge.toml names; the tree is looked at again within a minute"
                    .to_owned(),
            ),
            SecretError::OtherProject { .. } => {
                (AgeCause::Value, "it was encrypted for another project".to_owned(), encrypt)
            }
            SecretError::NoProject { .. } => (AgeCause::Value, "it carries no project inside".to_owned(), encrypt),
            SecretError::Locked => (
                AgeCause::Value,
                "it is encrypted to others than this daemon, or damaged".to_owned(),
                format!("list the daemon's recipient in secrets.toml and {encrypt}"),
            ),
            SecretError::Armor => (
                AgeCause::Value,
                "it is not whole".to_owned(),
                "copy all of what `forge secret encrypt` printed, from its BEGIN line to its END line".to_owned(),
            ),
            SecretError::NotAllowed { .. } | SecretError::Unreadable { .. } | SecretError::NoText { .. } => {
                (AgeCause::Value, error.to_string(), encrypt)
            }
        };
        Err(AgeRefusal { cause, message, hint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        recipient: String,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let (identity, recipient) = new_identity();
        let text = format!("# made for a test\n{}\n", identity.reveal());
        std::fs::write(folder.path().join("identity.age"), text).expect("write");
        Place { folder, recipient }
    }

    impl Place {
        fn open(&self, project: &str, armored: &str) -> Result<Secret, SecretError> {
            open_for_project(Some(&self.folder.path().join("identity.age")), project, armored)
        }
    }

    fn shop() -> Name {
        "shop".parse().expect("a name")
    }

    #[test]
    fn an_age_value_opens_in_its_own_project_only() {
        let place = place();
        let recipients = [place.recipient.clone()];
        let armored = seal_for_project(&recipients, &shop(), &Secret::new("hunter2\nline two")).expect("sealed");
        assert_eq!(place.open("shop", &armored).expect("opens").reveal(), "hunter2\nline two");
        let pasted = format!("password = {{ age = \"\"\"\n{armored}\"\"\" }}\n");
        assert_eq!(place.open("shop", &pasted).expect("opens").reveal(), "hunter2\nline two");
        assert!(matches!(place.open("bank", &armored), Err(SecretError::OtherProject { .. })));
        let recipient = super::super::recipient(&place.recipient).expect("a key");
        let bare = super::armored(&age::encrypt(&recipient, b"hunter2").expect("sealed"));
        assert!(matches!(place.open("shop", &bare), Err(SecretError::NoProject { .. })));
        let cut: String = armored.chars().take(90).collect();
        assert!(matches!(place.open("shop", &cut), Err(SecretError::Armor)));
    }

    #[test]
    fn each_recipient_opens_a_value_and_nobody_else_does() {
        let (one, other, stranger) = (place(), place(), place());
        let recipients = [one.recipient.clone(), other.recipient.clone()];
        let armored = seal_for_project(&recipients, &shop(), &Secret::new("hunter2")).expect("sealed");
        for place in [&one, &other] {
            assert_eq!(place.open("shop", &armored).expect("opens").reveal(), "hunter2");
        }
        assert!(matches!(stranger.open("shop", &armored), Err(SecretError::Locked)));
        assert!(matches!(seal_for_project(&[], &shop(), &Secret::new("x")), Err(SealError::Age(_))));
        let wrong = ["age1".to_owned()];
        assert!(matches!(seal_for_project(&wrong, &shop(), &Secret::new("x")), Err(SealError::Recipient)));
    }

    #[test]
    fn a_check_says_whether_the_value_or_the_host_is_to_be_mended() {
        let place = place();
        let recipients = [place.recipient.clone()];
        let armored = seal_for_project(&recipients, &shop(), &Secret::new("hunter2")).expect("sealed");
        let file = place.folder.path().join("identity.age");
        let known = Identity { file: Some(file.clone()) };
        assert_eq!(known.check(&shop(), &armored), Ok(()));
        let bank = known.check(&"bank".parse().expect("a name"), &armored).expect_err("another project");
        assert_eq!(bank.cause, AgeCause::Value);
        assert!(bank.message.contains("another project") && bank.hint.contains("--project bank"), "{bank:?}");
        let none = Identity { file: None }.check(&shop(), &armored).expect_err("no identity");
        assert_eq!(none.cause, AgeCause::Identity);
        std::fs::write(&file, "nothing").expect("write");
        let spoiled = known.check(&shop(), &armored).expect_err("no identity in it");
        assert_eq!(spoiled.cause, AgeCause::Identity);
        assert!(spoiled.message.contains("identity.age"), "{spoiled:?}");
    }
}
