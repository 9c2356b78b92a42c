//! Surveys: each question makes sense on its own, and its default passes its own rules.

use std::collections::BTreeMap;

use crate::diagnostic::Code;
use crate::meant::{Question, QuestionKind};
use crate::resolve::pattern;
use crate::suggest::did_you_mean;
use crate::written::reader::{Named, Number};
use crate::written::sheet::{At, Sheet, Span};
use crate::written::template::{Question as WrittenQuestion, QuestionType};

/// How long a question's name may be: it becomes `FORGE_VAR_<NAME>`.
const QUESTION_NAME_CHARS_MAX: usize = 64;

/// How many questions a survey has at most.
const QUESTIONS_MAX: usize = 100;

pub(super) fn survey(
    written: Option<&At<Named<WrittenQuestion>>>,
    sheet: &Sheet,
) -> Option<BTreeMap<String, Question>> {
    let Some(written) = written else { return Some(BTreeMap::new()) };
    let questions = &written.value.0;
    let mut valid = true;
    if questions.len() > QUESTIONS_MAX {
        let message = format!("the survey has {} questions, and at most {QUESTIONS_MAX} are asked", questions.len());
        sheet.error(written.span, Code::TooLarge, message, None);
        valid = false;
    }
    let mut variables: BTreeMap<String, &str> = BTreeMap::new();
    let mut survey = BTreeMap::new();
    for (name, question) in questions {
        valid &= question_name(name, sheet);
        if let Some(other) = variables.insert(folded(&name.value), &name.value) {
            let message = format!("`{}` and `{other}` would both become FORGE_VAR_{}", name.value, folded(&name.value));
            sheet.error(name.span, Code::Survey, message, Some("give one of them another name".to_owned()));
            valid = false;
        }
        match self::question(name, &question.value, sheet) {
            Some(question) => drop(survey.insert(name.value.clone(), question)),
            None => valid = false,
        }
    }
    valid.then_some(survey)
}

/// What a name becomes as a variable of the environment.
fn folded(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn question_name(name: &At<String>, sheet: &Sheet) -> bool {
    let text = &name.value;
    let valid = text.len() <= QUESTION_NAME_CHARS_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !valid {
        let message = format!("`{text}` is no name for a question");
        let near = folded(text).to_lowercase();
        let hint = match near.starts_with(|c: char| c.is_ascii_lowercase()) && near.len() <= QUESTION_NAME_CHARS_MAX {
            true => format!("write `{near}`: a-z, 0-9 and `_`, beginning with a letter"),
            false => format!(
                "a name has a-z, 0-9 and `_`, begins with a letter, and has at most {QUESTION_NAME_CHARS_MAX} characters"
            ),
        };
        sheet.error(name.span, Code::BadName, message, Some(hint));
    }
    valid
}

fn question(name: &At<String>, written: &WrittenQuestion, sheet: &Sheet) -> Option<Question> {
    let kind = written.kind.as_ref()?.value;
    let mut valid = only_its_own_keys(kind, written, sheet);
    let kind = match kind {
        QuestionType::String => QuestionKind::String {
            pattern: match &written.pattern {
                None => None,
                Some(at) => Some(pattern("pattern", at, Code::Survey, sheet)?),
            },
        },
        QuestionType::Integer => {
            let whole = |key: &str, at: &Option<At<Number>>| match at.as_ref().map(|at| (at.value, at.span)) {
                None => Some(None),
                Some((Number::Whole(number), _)) => Some(Some(number)),
                Some((Number::Fraction(_), span)) => {
                    sheet.error(span, Code::Survey, format!("`{key}` of an integer must be an integer"), None);
                    None
                }
            };
            let (min, max) = (whole("min", &written.min), whole("max", &written.max));
            let (min, max) = (min?, max?);
            valid &= in_order(min.zip(max).is_none_or(|(min, max)| min <= max), written, sheet);
            QuestionKind::Integer { min, max }
        }
        QuestionType::Number => {
            let number = |at: &Option<At<Number>>| {
                at.as_ref().map(|at| match at.value {
                    Number::Whole(number) => number as f64,
                    Number::Fraction(number) => number,
                })
            };
            let (min, max) = (number(&written.min), number(&written.max));
            valid &= in_order(min.zip(max).is_none_or(|(min, max)| min <= max), written, sheet);
            QuestionKind::Number { min, max }
        }
        QuestionType::Boolean => QuestionKind::Boolean,
        QuestionType::Choice => QuestionKind::Choice(choices(name, written, sheet)?),
        QuestionType::Secret => QuestionKind::Secret,
    };
    let default = match &written.default {
        None => None,
        Some(at) => match kind.check(&at.value.0) {
            Ok(value) => Some(value),
            Err(why) => {
                // A client may send a number as text; in TOML it is written as what it is.
                let unquoted = at.value.0.is_string() && kind.check_sent(&at.value.0).is_ok();
                let hint = match &kind {
                    QuestionKind::Choice(choices) => {
                        at.value.0.as_str().and_then(|text| did_you_mean(text, choices.iter().map(String::as_str)))
                    }
                    QuestionKind::Integer { .. } | QuestionKind::Number { .. } | QuestionKind::Boolean if unquoted => {
                        Some("take the quotes away".to_owned())
                    }
                    QuestionKind::String { .. }
                    | QuestionKind::Integer { .. }
                    | QuestionKind::Number { .. }
                    | QuestionKind::Boolean
                    | QuestionKind::Secret => None,
                };
                sheet.error(
                    at.span,
                    Code::Survey,
                    format!("`default` is no answer to its own question: it {why}"),
                    hint,
                );
                valid = false;
                None
            }
        },
    };
    valid.then(|| Question {
        kind,
        description: written.description.as_ref().map(|at| at.value.clone()).unwrap_or_default(),
        required: written.required.as_ref().is_some_and(|at| at.value),
        default,
    })
}

fn in_order(ordered: bool, written: &WrittenQuestion, sheet: &Sheet) -> bool {
    if !ordered {
        let span = written.max.as_ref().map_or(Span::FILE, |at| at.span);
        sheet.error(span, Code::Survey, "`max` is less than `min`: no answer could be right", None);
    }
    ordered
}

fn choices(name: &At<String>, written: &WrittenQuestion, sheet: &Sheet) -> Option<Vec<String>> {
    let hint = || Some("write `choices = [\"...\", \"...\"]`".to_owned());
    let Some(at) = &written.choices else {
        let message = format!("the choice `{}` has no `choices`", name.value);
        sheet.error(name.span, Code::MissingKey, message, hint());
        return None;
    };
    if at.value.is_empty() {
        sheet.error(at.span, Code::Survey, "`choices` is empty: no answer could be right", hint());
        return None;
    }
    let mut choices: Vec<String> = Vec::new();
    for choice in &at.value {
        if choices.contains(&choice.value) {
            sheet.warning(choice.span, Code::Unused, format!("`{}` stands twice in `choices`", choice.value), None);
        } else {
            choices.push(choice.value.clone());
        }
    }
    Some(choices)
}

/// Notes keys that do not go with the question's type.
fn only_its_own_keys(kind: QuestionType, written: &WrittenQuestion, sheet: &Sheet) -> bool {
    let numbers = &[QuestionType::Integer, QuestionType::Number];
    let all_but_secret = &[
        QuestionType::String,
        QuestionType::Integer,
        QuestionType::Number,
        QuestionType::Boolean,
        QuestionType::Choice,
    ];
    let keys: [(&str, Option<Span>, &[QuestionType], &str); 5] = [
        ("pattern", written.pattern.as_ref().map(|at| at.span), &[QuestionType::String], "only a string has one"),
        ("choices", written.choices.as_ref().map(|at| at.span), &[QuestionType::Choice], "write `type = \"choice\"`"),
        ("min", written.min.as_ref().map(|at| at.span), numbers, "only an integer or a number has one"),
        ("max", written.max.as_ref().map(|at| at.span), numbers, "only an integer or a number has one"),
        (
            "default",
            written.default.as_ref().map(|at| at.span),
            all_but_secret,
            "a secret that stands in git is none: take it out, and name it in an environment's [secrets]",
        ),
    ];
    let mut valid = true;
    for (key, span, kinds, hint) in keys {
        if let Some(span) = span.filter(|_| !kinds.contains(&kind)) {
            if key == "default" {
                sheet.hide(span);
            }
            sheet.error(
                span,
                Code::Survey,
                format!("`{key}` does not go with this type of question"),
                Some(hint.to_owned()),
            );
            valid = false;
        }
    }
    valid
}
