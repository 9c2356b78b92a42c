//! The form that runs a template, made from its survey: what the survey asks, the browser checks where it can, and the daemon in any
//! case. What was wrong is said at its field, the other answers are kept, and a secret is never shown again.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use forge_api::{CreateTask, Problem};
use forge_config::meant::{Project, Question, QuestionKind, Template};
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Map, Value};

use super::layout::Visitor;
use super::{parts, summary, templates};
use crate::core::CoreError;
use crate::hex;
use crate::http::body::Form;
use crate::http::gate;
use crate::http::path::PathOf;
use crate::http::problem::{Refusal, Shown};
use crate::http::routes::Api;
use crate::secrets::random_bytes;

/// What stands before a question's name in the form, so that no question can be another field.
const ANSWER: &str = "answer.";

/// The field of the arguments, one a line.
const ARGUMENTS: &str = "arguments";

/// The field of the key by which a form that is sent twice makes one task.
const KEY: &str = "key";

/// What a form holds: what was answered, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Filled {
    key: String,
    answers: BTreeMap<String, String>,
    arguments: String,
    /// By question.
    wrong: BTreeMap<String, String>,
    /// What belongs to no question.
    refused: Option<(String, Option<String>)>,
}

/// An empty form.
pub(super) fn fresh() -> Result<Filled, Refusal> {
    let key = random_bytes::<16>().map_err(|error| CoreError::Internal(error.to_string()))?;
    Ok(Filled { key: hex::encode(&key), ..Filled::default() })
}

/// The panel with the form.
pub(super) fn panel(visitor: &Visitor, project: &Project, template: &Template, filled: &Filled) -> Markup {
    let path = format!("{}/run", parts::template_path(project.name.as_str(), template.name.as_str()));
    parts::panel(
        "Run",
        html! {},
        html! {
            div.body id="run" {
                form.form method="post" action=(path) autocomplete="off" {
                    (parts::csrf(visitor))
                    input type="hidden" name=(KEY) value=(filled.key);
                    (note(&template.survey, filled))
                    @for (name, question) in &template.survey { (field(name, question, filled)) }
                    @if template.allow_arguments {
                        div.field {
                            label for=(ARGUMENTS) { "Arguments" }
                            textarea id=(ARGUMENTS) name=(ARGUMENTS) spellcheck="false" aria-describedby="arguments-hint" { "\n" (filled.arguments) }
                            span.hint id="arguments-hint" { "One a line, appended to the template's own." }
                        }
                    }
                    div.buttons { button.main type="submit" { "Run " (template.name.as_str()) } }
                }
            }
        },
    )
}

/// What is wrong, above all fields: here or at the field that it belongs to.
fn note(survey: &BTreeMap<String, Question>, filled: &Filled) -> Markup {
    if let Some((refused, hint)) = &filled.refused {
        return html! {
            div.note.bad role="alert" { p { strong { (parts::prose(refused)) } } @if let Some(hint) = hint { p { (parts::prose(hint)) } } }
        };
    }
    let (below, here): (Vec<_>, Vec<_>) = filled.wrong.iter().partition(|(name, _)| survey.contains_key(*name));
    html! {
        @if !filled.wrong.is_empty() {
            div.note.bad role="alert" {
                @if !below.is_empty() {
                    p { (parts::counted(below.len() as u64, "answer does", "answers do")) " not fit; what is wrong stands below." }
                }
                // The survey is another than the one that the form was made from.
                @for (_, wrong) in here { p { (parts::prose(wrong)) } }
            }
        }
    }
}

fn field(name: &str, question: &Question, filled: &Filled) -> Markup {
    let id = format!("answer-{name}");
    let wrong = filled.wrong.get(name);
    let about = format!("{id}-hint{}", if wrong.is_some() { format!(" {id}-wrong") } else { String::new() });
    let default = question.default.as_ref().map(summary::value_text);
    let answer = filled.answers.get(name).cloned().or_else(|| default.clone()).unwrap_or_default();
    html! {
        div.field {
            label for=(id) { (name) @if question.required && question.default.is_none() { " " span.needed { "needed" } } }
            @if !question.description.is_empty() { span.soft { bdi { (question.description) } } }
            (input(&id, name, question, &answer, wrong.is_some(), &about))
            span.hint id={ (id) "-hint" } { (parts::prose(&question.kind.rule())) @if let Some(default) = &default { "; without an answer " code { (default) } } }
            @if let Some(wrong) = wrong { span.wrong id={ (id) "-wrong" } { (parts::prose(wrong)) } }
        }
    }
}

fn input(id: &str, name: &str, question: &Question, answer: &str, is_wrong: bool, about: &str) -> Markup {
    let field = format!("{ANSWER}{name}");
    // A default answers what nobody answers, so that the browser may let it be empty.
    let needed = question.required && question.default.is_none();
    let invalid = is_wrong.then_some("true");
    let options = |choices: &[&str]| {
        html! {
            select id=(id) name=(field) required[needed] aria-invalid=[invalid] aria-describedby=(about) {
                @if answer.is_empty() { option value="" selected { "choose…" } } @else if !needed { option value="" { "no answer" } }
                @for choice in choices { option value=(choice) selected[*choice == answer] { (choice) } }
            }
        }
    };
    match &question.kind {
        // A field of one line would drop the others.
        QuestionKind::String { pattern: _ } if answer.contains('\n') => html! {
            textarea id=(id) name=(field) required[needed] spellcheck="false" aria-invalid=[invalid] aria-describedby=(about) { "\n" (answer) }
        },
        QuestionKind::String { pattern } => html! {
            // A browser matches all of the text where the survey's pattern matches anywhere, so that it is given only anchored ones.
            input id=(id) name=(field) value=(answer) required[needed] aria-invalid=[invalid] aria-describedby=(about) data-lines
                pattern=[pattern.as_ref().and_then(|pattern| browser_pattern(pattern.as_str()))];
        },
        QuestionKind::Integer { min, max } => html! {
            input id=(id) name=(field) type="number" inputmode="numeric" step="1" min=[*min] max=[*max] value=(answer)
                required[needed] aria-invalid=[invalid] aria-describedby=(about);
        },
        QuestionKind::Number { min, max } => html! {
            input id=(id) name=(field) type="number" inputmode="decimal" step="any" min=[*min] max=[*max] value=(answer)
                required[needed] aria-invalid=[invalid] aria-describedby=(about);
        },
        QuestionKind::Boolean => options(&["true", "false"]),
        QuestionKind::Choice(choices) => options(&choices.iter().map(String::as_str).collect::<Vec<_>>()),
        QuestionKind::Secret => html! {
            // A key has many lines; the stylesheet hides what is typed.
            textarea.secret id=(id) name=(field) rows="2" autocomplete="off" autocapitalize="off" spellcheck="false" required[needed]
                aria-invalid=[invalid] aria-describedby=(about) {}
        },
    }
}

/// A pattern that means the same in a browser: from `^` to `$`, of plain parts. The daemon checks every answer in any case.
fn browser_pattern(pattern: &str) -> Option<&str> {
    let inner = pattern.strip_prefix('^')?.strip_suffix('$')?;
    let is_plain =
        inner.chars().all(|character| character.is_ascii_alphanumeric() || "[]-_.+*?{},\\ /:@".contains(character));
    // A backslash before the end would have taken the dollar as text; classes such as `\d` are wider here than there.
    (is_plain && !inner.contains('\\')).then_some(inner)
}

/// `POST /projects/{p}/templates/{t}/run`
pub(crate) async fn run(
    State(api): State<Api>,
    visitor: Visitor,
    PathOf((project, name)): PathOf<(String, String)>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let project = gate::project(&api, &visitor.access, &project)?;
    let template = project.templates.get(name.as_str()).cloned();
    let template =
        template.ok_or_else(|| Refusal::not_found("template", &format!("{}/{name}", project.name.as_str())))?;
    let (mut filled, request) = read(&template, fields);
    if let Err(errors) = template.check_answers(&request.variables) {
        let refused = CoreError::InvalidAnswers(errors.iter().map(ToString::to_string).collect());
        for error in errors {
            filled.wrong.insert(error.name().to_owned(), error.to_string());
        }
        return again(&api, &visitor, &project, &template, filled, refused.problem()).await;
    }
    let key = Some(filled.key.clone()).filter(|key| !key.is_empty());
    match api.core.create_task(project.name.as_str(), &name, request, visitor.access.origin(), key).await {
        Ok(created) => Ok(Redirect::to(&format!("/tasks/{}", created.task.number)).into_response()),
        Err(error) => {
            let problem = error.problem();
            if problem.status >= 500 {
                return Err(error.into());
            }
            filled.refused = Some((problem.detail.clone(), problem.hint.clone()));
            again(&api, &visitor, &project, &template, filled, problem).await
        }
    }
}

/// The form once more, with what was wrong.
async fn again(
    api: &Api,
    visitor: &Visitor,
    project: &Project,
    template: &Template,
    mut filled: Filled,
    problem: Problem,
) -> Result<Response, Refusal> {
    // Another request needs another key.
    filled.key = fresh()?.key;
    let page = templates::page(api, visitor, project, template.name.as_str(), &filled).await?;
    let mut response = (StatusCode::UNPROCESSABLE_ENTITY, page).into_response();
    response.extensions_mut().insert(Shown(Box::new(problem)));
    Ok(response)
}

/// What a form says: to be shown again, and to be done.
fn read(template: &Template, fields: Vec<(String, String)>) -> (Filled, CreateTask) {
    let mut filled = Filled::default();
    let mut variables = Map::new();
    for (field, text) in fields {
        if let Some(name) = field.strip_prefix(ANSWER) {
            let question = template.survey.get(name);
            let is_secret = question.is_some_and(|question| matches!(question.kind, QuestionKind::Secret));
            // Browsers send the ends of lines as networks do.
            let mut text = text.replace("\r\n", "\n");
            if is_secret {
                // Who types a password and presses Enter means no line end; a key has more of them.
                let line = text.strip_suffix('\n').filter(|line| !line.contains('\n')).map(str::len);
                text.truncate(line.unwrap_or(text.len()));
            } else {
                filled.answers.insert(name.to_owned(), text.clone());
            }
            // A field that nobody filled in is no answer, unless a text without a default may be empty.
            if !text.is_empty() {
                variables.insert(name.to_owned(), Value::String(text));
            }
        } else if field == ARGUMENTS {
            filled.arguments = text;
        } else if field == KEY {
            filled.key = text;
        }
    }
    let arguments = filled.arguments.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
    (filled, CreateTask { variables, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_patterns_that_mean_the_same_in_a_browser_are_given_to_it() {
        assert_eq!(browser_pattern("^v[0-9]+$"), Some("v[0-9]+"));
        for other in ["v[0-9]+", "^v", r"^\d+$", "^(a|b)$", r"^a\$"] {
            assert_eq!(browser_pattern(other), None, "{other}");
        }
    }

    fn question(kind: QuestionKind) -> Question {
        Question { kind, description: "<b>what</b>".to_owned(), required: true, default: None }
    }

    #[test]
    fn a_secret_is_never_shown_again_and_other_answers_are() {
        let filled = Filled {
            answers: BTreeMap::from([("version".to_owned(), "\"><script>".to_owned())]),
            wrong: BTreeMap::from([("version".to_owned(), "`version` must be <other>".to_owned())]),
            ..Filled::default()
        };
        let text = field("version", &question(QuestionKind::String { pattern: None }), &filled).into_string();
        assert!(
            text.contains("value=\"&quot;&gt;&lt;script&gt;\"") && text.contains("aria-invalid=\"true\""),
            "{text}"
        );
        assert!(text.contains("&lt;other&gt;") && !text.contains("<b>") && !text.contains("<script>"), "{text}");
        let secret = field("token", &question(QuestionKind::Secret), &filled).into_string();
        assert!(secret.contains("class=\"secret\"") && secret.contains("></textarea>"), "{secret}");
    }

    #[test]
    fn answers_of_several_lines_have_fields_of_several_lines() {
        let mut question = question(QuestionKind::String { pattern: None });
        assert!(field("text", &question, &Filled::default()).into_string().contains("<input"));
        question.default = Some(Value::String("\none\n<two>".to_owned()));
        let shown = field("text", &question, &Filled::default()).into_string();
        // A browser drops the first line end of a field.
        assert!(shown.contains(">\n\none\n&lt;two&gt;</textarea>") && !shown.contains("<input"), "{shown}");
    }

    #[test]
    fn what_is_wrong_with_no_field_of_the_form_is_told_above_it() {
        let survey = BTreeMap::from([("version".to_owned(), question(QuestionKind::Boolean))]);
        let wrong = |names: &[&str]| Filled {
            wrong: names.iter().map(|name| ((*name).to_owned(), format!("`{name}` is <wrong>"))).collect(),
            ..Filled::default()
        };
        let shown = |names: &[&str]| note(&survey, &wrong(names)).into_string();
        assert_eq!(shown(&[]), "");
        assert!(shown(&["version"]).contains("1 answer does not fit") && !shown(&["version"]).contains("wrong&gt;"));
        let gone = shown(&["left"]);
        assert!(gone.contains("<code>left</code> is &lt;wrong&gt;") && !gone.contains("below"), "{gone}");
    }
}
