//! A path to one part of a JSON document, as integrations name it: `$.commits[0].author["e-mail"]`. The `$.` may be left out.
//!
//! It names one place and never several: no wildcards, no filters.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// How long a path may be.
pub const JSON_PATH_BYTES_MAX: usize = 1_024;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// A path that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

/// The text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    /// There is nothing, or more than [`JSON_PATH_BYTES_MAX`] bytes.
    #[error("it is empty, or longer than {JSON_PATH_BYTES_MAX} bytes")]
    Length,
    /// A step without a name.
    #[error("a name is missing at character {0}")]
    NoName(usize),
    /// A `[` without what belongs behind it.
    #[error("at character {0} must stand a number or a name in double quotes, and then `]`")]
    Bracket(usize),
    /// Something that no path holds.
    #[error("`{1}` at character {0} has no meaning: put names with other characters into [\"...\"]")]
    Character(usize, char),
}

impl JsonPath {
    /// The part of `document` that it names.
    pub fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(document, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
        })
    }
}

const fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

impl FromStr for JsonPath {
    type Err = JsonPathError;

    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        if text.is_empty() || text.len() > JSON_PATH_BYTES_MAX {
            return Err(JsonPathError::Length);
        }
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        // A path may begin with a name, as if `$.` stood before it.
        let mut name_follows = !text.starts_with('$') && !rest.starts_with(['[', '.']);
        let mut steps = Vec::new();
        while !rest.is_empty() || name_follows {
            let at = text[..text.len() - rest.len()].chars().count() + 1;
            if name_follows {
                let end = rest.find(|c| !is_plain(c)).unwrap_or(rest.len());
                if end == 0 {
                    return Err(rest
                        .chars()
                        .next()
                        .filter(|c| !matches!(c, '.' | '['))
                        .map_or(JsonPathError::NoName(at), |c| JsonPathError::Character(at, c)));
                }
                steps.push(Step::Key(rest[..end].to_owned()));
                (rest, name_follows) = (&rest[end..], false);
            } else if let Some(name) = rest.strip_prefix('.') {
                (rest, name_follows) = (name, true);
            } else if let Some(inside) = rest.strip_prefix('[') {
                let (step, behind) = bracketed(inside).ok_or(JsonPathError::Bracket(at))?;
                steps.push(step);
                rest = behind;
            } else {
                let character = rest.chars().next().unwrap_or_default();
                return Err(JsonPathError::Character(at, character));
            }
        }
        Ok(Self(steps))
    }
}

/// What stands between `[` and `]`, and what stands behind.
fn bracketed(inside: &str) -> Option<(Step, &str)> {
    if let Some(quoted) = inside.strip_prefix('"') {
        let (name, behind) = quoted.split_once('"')?;
        return Some((Step::Key(name.to_owned()), behind.strip_prefix(']')?));
    }
    let (index, behind) = inside.split_once(']')?;
    let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    index.parse().ok().filter(|_| digits).map(|index| (Step::Index(index), behind))
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        self.0.iter().try_for_each(|step| match step {
            Step::Key(key) if !key.is_empty() && key.chars().all(is_plain) => write!(f, ".{key}"),
            Step::Key(key) => write!(f, "[\"{key}\"]"),
            Step::Index(index) => write!(f, "[{index}]"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_names_one_place() {
        let document = json!({ "ref": "main", "commits": [{ "id": "a1", "e mail": 5 }], "0": "zero" });
        for (path, found) in [
            ("ref", Some(json!("main"))),
            ("$.ref", Some(json!("main"))),
            ("$.commits[0].id", Some(json!("a1"))),
            ("commits[0][\"e mail\"]", Some(json!(5))),
            ("$.commits[1].id", None),
            ("$.ref.more", None),
            ("0", Some(json!("zero"))),
            ("$", Some(document.clone())),
        ] {
            let parsed: JsonPath = path.parse().expect(path);
            assert_eq!(parsed.find(&document), found.as_ref(), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_says_where() {
        for (text, error) in [
            ("", JsonPathError::Length),
            ("$.", JsonPathError::NoName(3)),
            ("a..b", JsonPathError::NoName(3)),
            ("a[b]", JsonPathError::Bracket(2)),
            ("a[-1]", JsonPathError::Bracket(2)),
            ("a[*]", JsonPathError::Bracket(2)),
            ("a b", JsonPathError::Character(2, ' ')),
            ("$.*", JsonPathError::Character(3, '*')),
        ] {
            assert_eq!(text.parse::<JsonPath>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_shown_is_read_again(text in "[$.a-c\\[\\]\"0-9é ]{0,12}") {
            if let Ok(path) = text.parse::<JsonPath>() {
                prop_assert_eq!(path.to_string().parse(), Ok(path));
            }
        }
    }
}
