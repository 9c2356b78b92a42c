//! Integrations: a sender proves itself, a request is matched, and answers are found in it.

use std::collections::BTreeMap;

use crate::diagnostic::Code;
use crate::json_path::JsonPath;
use crate::meant;
use crate::name::Name;
use crate::place::ProjectKind;
use crate::resolve::answers::{Giver, check_names};
use crate::resolve::parts::allowed;
use crate::resolve::{each, pattern, project_reference};
use crate::secret::SecretValue;
use crate::tree::{CheckOptions, WrittenProject};
use crate::written::integration::{Auth, Extract, ExtractTable, Integration, Match};
use crate::written::reader::Named;
use crate::written::sheet::{At, Sheet, Span};

/// How many rules an integration has at most, of each kind.
const RULES_MAX: usize = 100;

/// How long a header's name may be.
const HEADER_BYTES_MAX: usize = 256;

pub(super) fn integrations(
    project: &Name,
    written: &WrittenProject,
    templates: &BTreeMap<Name, Option<meant::Template>>,
    options: &CheckOptions,
) -> BTreeMap<Name, Option<meant::Integration>> {
    each(&written.integrations, |sheet, integration| {
        let template =
            project_reference(ProjectKind::Template, integration.template.as_ref(), written.templates.keys(), sheet)
                .flatten();
        let auth = auth(integration, project, options, sheet);
        let matches = matches(integration.matches.as_ref(), sheet);
        let extract = extract(integration.extract.as_ref(), sheet);
        let meant = template.as_ref().and_then(|name| templates.get(name)).and_then(Option::as_ref);
        // A template whose own file is wrong says so itself.
        let fits = meant.is_none_or(|template| {
            let whole = integration.template.as_ref().map_or(Span::FILE, |template| template.span);
            let giver = Giver { what: "an integration", table: "extract", whole };
            let rules = integration.extract.as_ref().map_or(&[][..], |rules| rules.value.0.as_slice());
            check_names(template, rules.iter().map(|(name, _)| (name.value.as_str(), name.span)), giver, sheet)
        });
        Some(meant::Integration {
            template: template?,
            auth: auth?,
            matches: matches?,
            extract: extract.filter(|_| fits)?,
        })
    })
}

fn auth(
    written: &Integration,
    project: &Name,
    options: &CheckOptions,
    sheet: &Sheet,
) -> Option<meant::IntegrationAuth> {
    let secret = written.secret.as_ref();
    let may_be_used =
        secret.is_none_or(|secret| allowed(&secret.value.0, secret.span, "secret", project, options, sheet));
    let auth = written.auth.as_ref()?;
    let make: fn(SecretValue) -> meant::IntegrationAuth = match auth.value {
        Auth::Github => meant::IntegrationAuth::Github,
        Auth::Hmac => meant::IntegrationAuth::Hmac,
        Auth::Token => meant::IntegrationAuth::Token,
        Auth::None => {
            if let Some(secret) = secret {
                let hint = "write `auth = \"token\"`, \"hmac\" or \"github\", or take the secret out".to_owned();
                sheet.error(secret.span, Code::Conflict, "`secret` does not go with `auth = \"none\"`", Some(hint));
                return None;
            }
            let message = "with `auth = \"none\"` anyone who reaches the daemon may start this template";
            let hint = "write `auth = \"token\"`, \"hmac\" or \"github\", and a secret".to_owned();
            sheet.warning(auth.span, Code::Unprotected, message, Some(hint));
            return Some(meant::IntegrationAuth::None);
        }
    };
    match secret {
        Some(secret) => may_be_used.then(|| make(secret.value.0.clone())),
        None => {
            // One that is there and wrong is noted already, and looks absent here.
            if !super::parts::mentions::<Integration>(sheet, "secret") {
                let hint =
                    "write `secret = { file = \"...\" }`, or env, credential or age in the place of file".to_owned();
                sheet.error(
                    auth.span,
                    Code::MissingKey,
                    "`secret` is missing: a sender proves itself with it",
                    Some(hint),
                );
            }
            None
        }
    }
}

fn matches(written: Option<&At<Vec<At<Match>>>>, sheet: &Sheet) -> Option<Vec<meant::Match>> {
    let Some(written) = written else { return Some(Vec::new()) };
    let mut valid = bounded("match", written.value.len(), written.span, sheet);
    let mut matches = Vec::new();
    for at in &written.value {
        let Match { header, json, equals, pattern: expression } = &at.value;
        let part = part(header.as_ref(), json.as_ref(), at.span, "match", sheet);
        let test = match (equals, expression) {
            (Some(equals), None) => Some(meant::MatchTest::Equals(equals.value.clone())),
            (None, Some(expression)) => {
                pattern("pattern", expression, Code::BadValue, sheet).map(meant::MatchTest::Pattern)
            }
            (Some(_), Some(second)) => {
                let message = "`equals` and `pattern` do not go together";
                sheet.error(second.span, Code::Conflict, message, Some("take one of them out".to_owned()));
                None
            }
            (None, None) => {
                let hint = "write `equals = \"...\"` or `pattern = '...'`".to_owned();
                sheet.error(at.span, Code::MissingKey, "this match does not say what it must be", Some(hint));
                None
            }
        };
        match part.zip(test) {
            Some((part, test)) => matches.push(meant::Match { part, test }),
            None => valid = false,
        }
    }
    valid.then_some(matches)
}

fn extract(written: Option<&At<Named<Extract>>>, sheet: &Sheet) -> Option<BTreeMap<String, meant::Extract>> {
    let Some(written) = written else { return Some(BTreeMap::new()) };
    let mut valid = bounded("extract", written.value.0.len(), written.span, sheet);
    let mut extract = BTreeMap::new();
    for (name, at) in &written.value.0 {
        let ExtractTable { header, json, pattern: expression } = &at.value.0;
        let part = part(header.as_ref(), json.as_ref(), at.span, &format!("extract.{}", name.value), sheet);
        let expression = match expression {
            None => Some(None),
            Some(expression) => pattern("pattern", expression, Code::BadValue, sheet).map(Some),
        };
        match part.zip(expression) {
            Some((part, pattern)) => drop(extract.insert(name.value.clone(), meant::Extract { part, pattern })),
            None => valid = false,
        }
    }
    valid.then_some(extract)
}

/// The one part of a request that a rule looks at.
fn part(
    header: Option<&At<String>>,
    json: Option<&At<String>>,
    whole: Span,
    rule: &str,
    sheet: &Sheet,
) -> Option<meant::RequestPart> {
    match (header, json) {
        (Some(header), None) => {
            let is_header = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            let name = &header.value;
            if name.is_empty() || name.len() > HEADER_BYTES_MAX || !name.chars().all(is_header) {
                let hint = "write it as in \"X-GitHub-Event\"".to_owned();
                sheet.error(header.span, Code::BadValue, format!("`{name}` is no name of a header"), Some(hint));
                return None;
            }
            Some(meant::RequestPart::Header(name.to_ascii_lowercase()))
        }
        (None, Some(json)) => match json.value.parse::<JsonPath>() {
            Ok(path) => Some(meant::RequestPart::Json(path)),
            Err(error) => {
                let hint = "write it as in \"$.repository.name\" or \"$.commits[0].id\"".to_owned();
                sheet.error(json.span, Code::BadValue, format!("`{}` is no path: {error}", json.value), Some(hint));
                None
            }
        },
        (Some(_), Some(json)) => {
            let message = "`header` and `json` do not go together";
            sheet.error(json.span, Code::Conflict, message, Some("take one of them out".to_owned()));
            None
        }
        (None, None) => {
            let message = format!("`{rule}` does not say where to look");
            let hint = "write `header = \"...\"` or `json = \"$....\"`".to_owned();
            sheet.error(whole, Code::MissingKey, message, Some(hint));
            None
        }
    }
}

fn bounded(key: &str, count: usize, span: Span, sheet: &Sheet) -> bool {
    if count > RULES_MAX {
        let message = format!("`{key}` has {count} rules, and at most {RULES_MAX} are taken");
        sheet.error(span, Code::TooLarge, message, None);
    }
    count <= RULES_MAX
}
