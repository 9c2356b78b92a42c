//! A secret as it is written: `{ age | file | env | credential = "..." }` and never a plain text.
//!
//! Whatever stands under such a key is hidden before it is read, so that no mistake on its line can show it.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::Code;
use crate::secret::SecretValue;
use crate::suggest::{did_you_mean, list_of};
use crate::written::declare::choice;
use crate::written::reader::{Place, Shape, Written, found, hide_leaves};
use crate::written::sheet::At;

/// The kinds of a secret, in the order in which messages name them.
const KINDS: &[&str] = &["age", "file", "env", "credential"];

/// How an age value begins and ends.
const AGE_BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const AGE_END: &str = "-----END AGE ENCRYPTED FILE-----";

/// What to write instead of a plain text.
const HINT: &str = "write { file = \"...\" }, { env = \"...\" }, { credential = \"...\" } or { age = \"...\" }";

/// A secret on its own.
#[derive(Clone, Debug)]
pub(crate) struct Secret(pub(crate) SecretValue);

/// A secret of an environment, with where the job sees it.
#[derive(Clone, Debug)]
pub(crate) struct EnvironmentSecret {
    pub(crate) value: SecretValue,
    pub(crate) destination: Option<At<Destination>>,
}

choice! {
    /// Where a job sees a secret.
    Destination { "env" => Env, "var" => Variable, }
}

impl Written for Secret {
    fn shape() -> Shape {
        Shape::Secret
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        secret_table(value, place).and_then(|table| secret(table, value, &[], place)).map(Self)
    }
}

impl Written for EnvironmentSecret {
    fn shape() -> Shape {
        Shape::PlacedSecret
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        let table = secret_table(value, place)?;
        let destination = table.get("as").map(|destination| {
            let inner = Place { key: "as", ..place };
            let span = inner.span(destination);
            Destination::read(destination, inner).map(|value| At { value, span })
        });
        let value = secret(table, value, &["as"], place);
        // An `as` that is there and wrong is noted already, and must not pass for one that is absent.
        let destination = match destination {
            Some(None) => return None,
            Some(written) => written,
            None => None,
        };
        value.map(|value| Self { value, destination })
    }
}

/// Whether a value of a table that also takes other values is meant as a secret: a table with one key, and that is a kind of secret.
pub(crate) fn looks_like_a_secret(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(table) => {
            table.len() == 1 && table.iter().all(|(key, _)| KINDS.contains(&AsRef::<str>::as_ref(key.get_ref())))
        }
        _ => false,
    }
}

/// The table of a secret. A plain text is refused without repeating it.
fn secret_table<'v, 'i>(value: &'v Spanned<DeValue<'i>>, place: Place<'_>) -> Option<&'v DeTable<'i>> {
    hide_leaves(value, place);
    match value.get_ref() {
        DeValue::Table(table) => Some(table),
        DeValue::String(_) => {
            let message = format!("`{}` is a secret, and it stands here in clear", place.key);
            let hint = format!("{HINT}; this value is in git's history now, so replace it");
            place.sheet.error(place.span(value), Code::PlainSecret, message, Some(hint));
            None
        }
        other => {
            let message = format!("`{}` must be a secret, not {}", place.key, found(other));
            place.sheet.error(place.span(value), Code::WrongType, message, Some(HINT.to_owned()));
            None
        }
    }
}

fn secret(table: &DeTable<'_>, whole: &Spanned<DeValue<'_>>, others: &[&str], place: Place<'_>) -> Option<SecretValue> {
    let mut kinds = Vec::new();
    let mut strangers = 0;
    for (key, value) in table {
        let name: &str = key.get_ref();
        if KINDS.contains(&name) {
            kinds.push((name, key, value));
        } else if !others.contains(&name) {
            strangers += 1;
            let known = || KINDS.iter().chain(others).copied();
            let hint =
                did_you_mean(name, known()).unwrap_or_else(|| format!("the keys here are: {}", list_of(known())));
            let message = format!("unknown key `{name}` in `{}`", place.key);
            place.sheet.error(place.span(key), Code::UnknownKey, message, Some(hint));
        }
    }
    kinds.sort_by_key(|(_, key, _)| key.span().start);
    match kinds.as_slice() {
        [(kind, _, value)] => {
            let path = format!("{}.{kind}", place.key);
            let inner = Place { key: &path, ..place };
            let text = String::read(value, inner)?;
            if let Some(why) = refuse_value(kind, &text) {
                inner.bad_value(inner.span(value), why, None);
                return None;
            }
            Some(match *kind {
                "age" => SecretValue::Age(text),
                "file" => SecretValue::File(text),
                "env" => SecretValue::Env(text),
                _ => SecretValue::Credential(text),
            })
        }
        [] => {
            // A misspelled kind is noted above, with the nearest one.
            if strangers == 0 {
                let message = format!("`{}` does not say where the secret comes from", place.key);
                place.sheet.error(place.span(whole), Code::MissingKey, message, Some(HINT.to_owned()));
            }
            None
        }
        [_, (kind, key, _), ..] => {
            let message = format!("`{}` comes from one place only, and `{kind}` is a second one", place.key);
            place.sheet.error(place.span(key), Code::Conflict, message, Some("take all but one out".to_owned()));
            None
        }
    }
}

/// Why a value makes no sense for its kind, without repeating it.
fn refuse_value(kind: &str, text: &str) -> Option<&'static str> {
    let plain = |text: &str| !text.is_empty() && !text.contains(['\0', '\n', '\r']);
    match kind {
        "age" if !(text.trim().starts_with(AGE_BEGIN) && text.trim().ends_with(AGE_END)) => {
            Some("must be what `forge secret encrypt` prints, from its BEGIN line to its END line")
        }
        "file" if !plain(text) || !text.starts_with('/') => Some("must be an absolute path on the daemon's host"),
        "file" if text.split('/').any(|part| part == "..") => Some("must not have `..` in it"),
        "env" if !is_variable_name(text) => Some("must be the name of a variable: letters, digits and `_`"),
        "credential" if !plain(text) || text.contains('/') || text.starts_with('.') => {
            Some("must be the name of a systemd credential, without `/`")
        }
        _ => None,
    }
}

/// Whether `text` is a name that an environment variable can have: `[A-Za-z_][A-Za-z0-9_]*`.
pub(crate) fn is_variable_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
