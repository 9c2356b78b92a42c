//! Answers that stand in the tree: what a schedule gives and an integration finds must fit the survey of the template that it starts.

use crate::answers::AnswerError;
use crate::diagnostic::Code;
use crate::meant::{QuestionKind, Template};
use crate::suggest::{did_you_mean, list_of};
use crate::written::raw::{RawTable, pointer_part};
use crate::written::sheet::{Sheet, Span};

/// Who gives the answers.
#[derive(Clone, Copy)]
pub(super) struct Giver<'a> {
    /// What messages call it.
    pub(super) what: &'a str,
    /// The table in which it gives them.
    pub(super) table: &'a str,
    /// Where a mistake stands that is about an answer that is missing.
    pub(super) whole: Span,
}

/// Whether the answers fit the survey, with every mistake noted.
pub(super) fn check_given(template: &Template, given: &RawTable, giver: Giver<'_>, sheet: &Sheet) -> bool {
    let span = |name: &str| given.spans.get(&format!("/{}", pointer_part(name)));
    let mut fits = true;
    let mut plain = given.value.clone();
    for (name, question) in &template.survey {
        if matches!(question.kind, QuestionKind::Secret) && plain.remove(name).is_some() {
            let value = span(name).map_or(giver.whole, |span| span.value);
            sheet.hide(value);
            let message = format!("`{name}` is a secret, and its answer stands here in clear");
            let hint =
                "replace the secret, since it is in git's history now, and name it in an environment's [secrets]";
            sheet.error(value, Code::PlainSecret, message, Some(hint.to_owned()));
            fits = false;
        }
    }
    for error in template.check_answers(&plain).err().into_iter().flatten() {
        let at = match &error {
            AnswerError::Unknown { name, .. } => span(name).map(|span| span.key),
            AnswerError::Refused { name, .. } => span(name).map(|span| span.value),
            AnswerError::Missing { name, .. } => {
                // Its answer is noted above.
                if given.value.contains_key(name) {
                    continue;
                }
                None
            }
        };
        let hint = match &error {
            AnswerError::Missing { name, .. } => Some(missing_hint(template, name, giver)),
            AnswerError::Unknown { .. } | AnswerError::Refused { .. } => None,
        };
        sheet.error(at.unwrap_or(giver.whole), Code::Answers, error.to_string(), hint);
        fits = false;
    }
    fits
}

/// Whether each answer that will be found has its question, and each question that needs an answer will have one.
pub(super) fn check_names<'a>(
    template: &Template,
    given: impl Iterator<Item = (&'a str, Span)> + Clone,
    giver: Giver<'_>,
    sheet: &Sheet,
) -> bool {
    let mut fits = true;
    let questions = || template.survey.keys().map(String::as_str);
    for (name, span) in given.clone().filter(|(name, _)| !template.survey.contains_key(*name)) {
        let hint = did_you_mean(name, questions()).unwrap_or_else(|| format!("it asks for {}", list_of(questions())));
        let message = format!("the survey of `{}` does not ask for `{name}`", template.name);
        sheet.error(span, Code::Answers, message, Some(hint));
        fits = false;
    }
    for (name, question) in &template.survey {
        let needed = question.required && question.default.is_none();
        if needed && !given.clone().any(|(given, _)| given == name) {
            let message = format!("`{name}` needs an answer: {}", question.kind.rule());
            sheet.error(giver.whole, Code::Answers, message, Some(missing_hint(template, name, giver)));
            fits = false;
        }
    }
    fits
}

fn missing_hint(template: &Template, name: &str, giver: Giver<'_>) -> String {
    let is_secret = template.survey.get(name).is_some_and(|question| matches!(question.kind, QuestionKind::Secret));
    if is_secret && giver.table == "params" {
        return format!(
            "{} cannot answer a secret question: take `required` out of the template, and name the secret in its environment",
            giver.what
        );
    }
    format!(
        "write `{name} = ...` below [{}], or give the question a default in templates/{}.toml",
        giver.table, template.name
    )
}
