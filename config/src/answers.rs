//! Answers to a survey: checked against the questions when a task is made, defaults filled in.
//!
//! A client may send every answer as text (`--var count=3`). A secret answer appears in no message.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::meant::{Question, QuestionKind, Template};
use crate::suggest::{list_of, nearest};

/// The longest answer: the kernel takes 128 KiB for one variable of the environment, its name included.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Answers that fit their questions.
#[derive(Clone, Default, PartialEq)]
pub struct Answers {
    /// Those that may be shown, each of its question's type; defaults included.
    pub plain: Map<String, Value>,
    /// Those that must not be shown.
    pub secret: BTreeMap<String, String>,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secret: Vec<_> = self.secret.keys().collect();
        f.debug_struct("Answers").field("plain", &self.plain).field("secret", &secret).finish()
    }
}

/// An answer that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The survey has no such question.
    #[error("the survey does not ask for `{name}`{}", unknown_hint(near.as_deref(), questions))]
    Unknown {
        /// What was answered.
        name: String,
        /// The question that was likely meant.
        near: Option<String>,
        /// The questions that there are.
        questions: Vec<String>,
    },
    /// A question that needs an answer got none.
    #[error("`{name}` needs an answer: {rule}{}", described(description))]
    Missing {
        /// The question.
        name: String,
        /// What an answer must be, in words.
        rule: String,
        /// What the survey asks; may be empty.
        description: String,
    },
    /// The answer breaks the question's rule.
    #[error("`{name}` {why}{}", described(description))]
    Refused {
        /// The question.
        name: String,
        /// What is wrong, in words; of a secret it does not repeat the answer.
        why: String,
        /// What the survey asks; may be empty.
        description: String,
    },
}

impl AnswerError {
    /// The name that the answer was given for.
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown { name, .. } | Self::Missing { name, .. } | Self::Refused { name, .. } => name,
        }
    }
}

fn unknown_hint(near: Option<&str>, questions: &[String]) -> String {
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None if questions.is_empty() => "; it asks for nothing".to_owned(),
        None => format!("; it asks for {}", list_of(questions.iter().map(String::as_str))),
    }
}

fn described(description: &str) -> String {
    if description.is_empty() { String::new() } else { format!(" ({description})") }
}

impl Template {
    /// Checks what was answered, and fills defaults in. Every mistake at once, by name.
    pub fn check_answers(&self, given: &Map<String, Value>) -> Result<Answers, Vec<AnswerError>> {
        let mut answers = Answers::default();
        let mut errors = Vec::new();
        for name in given.keys().filter(|name| !self.survey.contains_key(*name)) {
            let questions: Vec<_> = self.survey.keys().cloned().collect();
            let near = nearest(name, questions.iter().map(String::as_str)).map(str::to_owned);
            errors.push(AnswerError::Unknown { name: name.clone(), near, questions });
        }
        for (name, question) in &self.survey {
            if let Err(error) = question.answer(name, given.get(name), &mut answers) {
                errors.push(error);
            }
        }
        if errors.is_empty() { Ok(answers) } else { Err(errors) }
    }
}

impl Question {
    fn answer(&self, name: &str, given: Option<&Value>, answers: &mut Answers) -> Result<(), AnswerError> {
        let description = self.description.clone();
        let value = match given {
            Some(given) if !self.is_no_answer(given) => match self.kind.check_sent(given) {
                Ok(value) => value,
                Err(why) => return Err(AnswerError::Refused { name: name.to_owned(), why, description }),
            },
            Some(_) | None => match &self.default {
                Some(default) => default.clone(),
                None if self.required => {
                    return Err(AnswerError::Missing { name: name.to_owned(), rule: self.kind.rule(), description });
                }
                None => return Ok(()),
            },
        };
        match (&self.kind, value) {
            (QuestionKind::Secret, Value::String(secret)) => drop(answers.secret.insert(name.to_owned(), secret)),
            (_, value) => drop(answers.plain.insert(name.to_owned(), value)),
        }
        Ok(())
    }

    /// A form sends an empty text for a field that nobody filled in. Only a string that need not be there may be empty on purpose.
    fn is_no_answer(&self, given: &Value) -> bool {
        match (given, &self.kind) {
            (Value::Null, _) => true,
            (Value::String(text), QuestionKind::String { .. }) => text.is_empty() && self.required,
            (Value::String(text), QuestionKind::Choice(choices)) => text.is_empty() && !choices.contains(text),
            (
                Value::String(text),
                QuestionKind::Integer { .. }
                | QuestionKind::Number { .. }
                | QuestionKind::Boolean
                | QuestionKind::Secret,
            ) => text.is_empty(),
            (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_), _) => false,
        }
    }
}

impl QuestionKind {
    /// What an answer must be, in words.
    pub fn rule(&self) -> String {
        match self {
            Self::String { pattern: None } => "a text".to_owned(),
            Self::String { pattern: Some(pattern) } => format!("a text that matches `{pattern}`"),
            Self::Integer { min, max } => format!("an integer{}", bounds(*min, *max)),
            Self::Number { min, max } => format!("a number{}", bounds(*min, *max)),
            Self::Boolean => "true or false".to_owned(),
            Self::Choice(choices) => format!("one of {}", list_of(choices.iter().map(String::as_str))),
            Self::Secret => "a secret text".to_owned(),
        }
    }

    /// The type's name in a template: `string`, `integer`, `number`, `boolean`, `choice` or `secret`.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::String { .. } => "string",
            Self::Integer { .. } => "integer",
            Self::Number { .. } => "number",
            Self::Boolean => "boolean",
            Self::Choice(_) => "choice",
            Self::Secret => "secret",
        }
    }

    /// Checks an answer that a client sent, where numbers and booleans may be texts.
    pub(crate) fn check_sent(&self, given: &Value) -> Result<Value, String> {
        let Value::String(text) = given else { return self.check(given) };
        let text = text.trim();
        let read = match self {
            Self::Integer { .. } => text.parse::<i64>().ok().map(Value::from),
            Self::Number { .. } => text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number),
            Self::Boolean => text.parse::<bool>().ok().map(Value::Bool),
            Self::String { .. } | Self::Choice(_) | Self::Secret => None,
        };
        self.check(read.as_ref().unwrap_or(given))
    }

    /// Checks a value of the question's own type. What it says of a wrong one follows the question's name.
    pub(crate) fn check(&self, value: &Value) -> Result<Value, String> {
        let refused = || Err(format!("must be {}, not {}", self.rule(), shown(value)));
        match (self, value) {
            (Self::Secret, Value::String(text)) => {
                plain_text(text)?;
                Ok(value.clone())
            }
            (Self::Secret, _) => Err(format!("must be {}", self.rule())),
            (Self::String { pattern }, Value::String(text)) => {
                plain_text(text)?;
                match pattern {
                    Some(pattern) if !pattern.is_match(text) => refused(),
                    Some(_) | None => Ok(value.clone()),
                }
            }
            (Self::Integer { min, max }, Value::Number(number)) => match number.as_i64() {
                Some(number) if min.is_none_or(|min| min <= number) && max.is_none_or(|max| number <= max) => {
                    Ok(value.clone())
                }
                Some(_) | None => refused(),
            },
            (Self::Number { min, max }, Value::Number(number)) => match number.as_f64() {
                Some(number) if min.is_none_or(|min| min <= number) && max.is_none_or(|max| number <= max) => {
                    Ok(value.clone())
                }
                Some(_) | None => refused(),
            },
            (Self::Boolean, Value::Bool(_)) => Ok(value.clone()),
            (Self::Choice(choices), Value::String(text)) if choices.contains(text) => Ok(value.clone()),
            (
                Self::String { .. } | Self::Integer { .. } | Self::Number { .. } | Self::Boolean | Self::Choice(_),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_),
            ) => refused(),
        }
    }
}

/// Refuses what no variable of an environment can hold.
fn plain_text(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("must not hold a NUL character".to_owned());
    }
    match text.len() {
        0..=ANSWER_BYTES_MAX => Ok(()),
        length => Err(format!("must have at most {ANSWER_BYTES_MAX} bytes, and has {length}")),
    }
}

/// How many characters of a wrong answer a message repeats.
const SHOWN_CHARS_MAX: usize = 80;

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() > SHOWN_CHARS_MAX => {
            format!("`{}…`", text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
        }
        Value::String(text) => format!("`{text}`"),
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => format!("`{flag}`"),
        Value::Number(number) => format!("`{number}`"),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "a table".to_owned(),
    }
}

fn bounds<T: std::fmt::Display>(min: Option<T>, max: Option<T>) -> String {
    match (min, max) {
        (None, None) => String::new(),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
    }
}
