//! A text in which `{{path}}` stands for what the event says there, and `{{json path}}` for the same as JSON. Pure.

use serde_json::Value;

/// How what is put in fits its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// It stands within the quotes of a JSON text.
    Json,
    /// As it is.
    No,
}

/// Fills a text in. A path that leads nowhere is an empty text, since an event leaves out what it does not know.
pub(crate) fn fill(text: &str, payload: &Value, escape: Escape) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let Some((inner, after)) = after.split_once("}}") else {
            return Err("config.body: a `{{` has no `}}`: write `{{task.number}}`".to_owned());
        };
        filled.push_str(&value(inner.trim(), payload, escape)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value(inner: &str, payload: &Value, escape: Escape) -> Result<String, String> {
    let (path, as_json) = match inner.strip_prefix("json ") {
        Some(path) => (path.trim(), true),
        None => (inner, false),
    };
    let is_path = |part: &str| {
        !part.is_empty() && part.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-')
    };
    if !path.split('.').all(is_path) {
        return Err(format!("config.body: `{{{{{inner}}}}}` is no path into the event: write `{{{{task.number}}}}`"));
    }
    let found = path.split('.').try_fold(payload, |value, part| value.get(part)).unwrap_or(&Value::Null);
    if as_json {
        return Ok(found.to_string());
    }
    let text = match found {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Ok(match escape {
        Escape::No => text,
        Escape::Json => {
            let quoted = Value::String(text).to_string();
            quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_become_what_the_event_says() {
        let payload =
            json!({ "event": "task.finished", "task": { "number": 42, "reason": "a \"b\"\n", "summary": { "a": 1 } } });
        let filled = |text, escape| fill(text, &payload, escape).expect("it is whole");
        assert_eq!(filled("#{{task.number}} {{ event }}", Escape::No), "#42 task.finished");
        assert_eq!(filled("{\"why\": \"{{task.reason}}\"}", Escape::Json), "{\"why\": \"a \\\"b\\\"\\n\"}");
        assert_eq!(filled("{{task.reason}}", Escape::No), "a \"b\"\n");
        assert_eq!(
            filled("{{json task.summary}} {{json task.nothing}}[{{task.nothing}}]", Escape::Json),
            "{\"a\":1} null[]"
        );
        assert_eq!(filled("} { }}", Escape::No), "} { }}");
    }

    #[test]
    fn what_is_no_path_is_said() {
        let error = |text| fill(text, &json!({}), Escape::No).expect_err("no path");
        assert!(error("{{task.number").contains("has no `}}`"));
        for wrong in ["{{}}", "{{a b}}", "{{task..number}}", "{{secret:token}}", "{{json}}x{{json }}"] {
            assert!(fill(wrong, &json!({}), Escape::No).is_err() || wrong.starts_with("{{json}}"), "{wrong}");
        }
        assert!(error("{{secret:token}}").contains("is no path into the event"));
    }
}
