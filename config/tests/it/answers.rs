//! Answers to a survey, as a client sends them.

use forge_config::{AnswerError, CheckOptions, Files, check_tree};
use serde_json::{Map, Value, json};

use crate::catalog::FakeCatalog;

const TEMPLATE: &str = r#"
executor = "shell"
params = { script = "echo" }
[survey.version]
type = "string"
required = true
pattern = '^v[0-9]+$'
description = "What to roll out"
[survey.note]
type = "string"
[survey.count]
type = "integer"
min = 1
max = 9
default = 3
[survey.share]
type = "number"
max = 1
[survey.dry_run]
type = "boolean"
default = false
[survey.region]
type = "choice"
choices = ["east", "west"]
[survey.password]
type = "secret"
"#;

fn template() -> std::sync::Arc<forge_config::meant::Template> {
    let files: Files = [
        ("projects/shop/project.toml", ""),
        ("projects/shop/templates/ask.toml", TEMPLATE),
        ("plugins/shell.toml", "source = \"builtin:shell\""),
    ]
    .map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()))
    .into();
    let tree = check_tree(&files, &FakeCatalog, &CheckOptions::default()).tree.expect("a tree");
    tree.projects["shop"].templates["ask"].clone()
}

fn answers(given: Value) -> Result<forge_config::Answers, Vec<AnswerError>> {
    let Value::Object(given) = given else { panic!("an object") };
    template().check_answers(&given)
}

fn errors(given: Value) -> Vec<String> {
    answers(given).expect_err("refused").iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_are_filled_in_and_texts_become_what_they_mean() {
    let taken = answers(json!({
        "version": "v1", "count": "5", "share": "0.25", "dry_run": "true", "region": "west", "password": "hunter2"
    }))
    .expect("answers");
    let expected = json!({ "version": "v1", "count": 5, "share": 0.25, "dry_run": true, "region": "west" });
    assert_eq!(Value::Object(taken.plain.clone()), expected);
    assert_eq!(taken.secret["password"], "hunter2");
    assert!(!format!("{taken:?}").contains("hunter2"));
    let few = answers(json!({ "version": "v1" })).expect("answers");
    assert_eq!(Value::Object(few.plain), json!({ "version": "v1", "count": 3, "dry_run": false }));
    assert!(few.secret.is_empty());
}

#[test]
fn an_unanswered_form_field_is_no_answer() {
    let taken =
        answers(json!({ "version": "v1", "count": "", "share": null, "region": "", "password": "", "note": "" }));
    let plain = taken.expect("answers").plain;
    assert_eq!(Value::Object(plain), json!({ "version": "v1", "count": 3, "dry_run": false, "note": "" }));
    assert_eq!(
        errors(json!({ "version": "" })),
        ["`version` needs an answer: a text that matches `^v[0-9]+$` (What to roll out)"]
    );
}

#[test]
fn a_wrong_answer_is_told_the_rule() {
    for (given, error) in [
        (json!({ "version": "1" }), "`version` must be a text that matches `^v[0-9]+$`, not `1` (What to roll out)"),
        (json!({ "version": "v1", "count": "10" }), "`count` must be an integer from 1 to 9, not `10`"),
        (json!({ "version": "v1", "count": 1.5 }), "`count` must be an integer from 1 to 9, not `1.5`"),
        (json!({ "version": "v1", "share": "NaN" }), "`share` must be a number of at most 1, not `NaN`"),
        (json!({ "version": "v1", "dry_run": "yes" }), "`dry_run` must be true or false, not `yes`"),
        (json!({ "version": "v1", "region": "north" }), "`region` must be one of `east` and `west`, not `north`"),
        (json!({ "version": "v1", "note": "a\u{0}" }), "`note` must not hold a NUL character"),
        (json!({ "version": "v1", "verison": "v1" }), "the survey does not ask for `verison`; did you mean `version`?"),
    ] {
        assert_eq!(errors(given), [error]);
    }
}

#[test]
fn a_secret_answer_is_in_no_message() {
    for given in
        [json!({ "version": "v1", "password": ["hunter2"] }), json!({ "version": "v1", "password": "hunter2\u{0}" })]
    {
        let shown = errors(given);
        assert_eq!(shown.len(), 1);
        assert!(!shown[0].contains("hunter2"), "{shown:?}");
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let mut given = Map::new();
    given.insert("count".into(), json!("x"));
    given.insert("colour".into(), json!("red"));
    let found = template().check_answers(&given).expect_err("refused");
    let names: Vec<_> = found.iter().map(AnswerError::name).collect();
    assert_eq!(names, ["colour", "count", "version"]);
}
