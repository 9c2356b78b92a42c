//! Schedules: a time that comes, in a zone that exists, and answers that the template's survey takes.

use std::collections::BTreeMap;

use cronexpr::Crontab;

use crate::cron::{ZONES, parse};
use crate::diagnostic::Code;
use crate::meant;
use crate::name::Name;
use crate::place::ProjectKind;
use crate::resolve::answers::{Giver, check_given};
use crate::resolve::{each, or_default, project_reference};
use crate::suggest::did_you_mean;
use crate::tree::WrittenProject;
use crate::written::schedule::{Overlap, Schedule};
use crate::written::sheet::{At, Sheet, Span};

/// The time zone of a schedule that names none.
const TIMEZONE: &str = "UTC";

/// How many fields a cron line has.
const CRON_FIELDS: usize = 5;

/// From here on a firing is looked for, over the four years within which every date of the calendar comes once:
/// 2024-01-01T00:00:00Z. It is fixed, so that a verdict never depends on the day.
const LOOKED_FOR_FROM_UNIX_SECONDS: i64 = 1_704_067_200;

/// What people write instead of five fields elsewhere.
const NICKNAMES: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

pub(super) fn schedules(
    written: &WrittenProject,
    templates: &BTreeMap<Name, Option<meant::Template>>,
) -> BTreeMap<Name, Option<meant::Schedule>> {
    each(&written.schedules, |sheet, schedule| resolve(sheet, schedule, written, templates))
}

fn resolve(
    sheet: &Sheet,
    written: &Schedule,
    project: &WrittenProject,
    templates: &BTreeMap<Name, Option<meant::Template>>,
) -> Option<meant::Schedule> {
    let cron = written.cron.as_ref().and_then(|cron| self::cron(cron, sheet));
    let timezone = timezone(written.timezone.as_ref(), sheet);
    let template =
        project_reference(ProjectKind::Template, written.template.as_ref(), project.templates.keys(), sheet).flatten();
    let meant = template.as_ref().and_then(|name| templates.get(name)).and_then(Option::as_ref);
    let answers = written.params.clone().unwrap_or_default().value;
    let span = written.template.as_ref().map_or(Span::FILE, |template| template.span);
    // A template whose own file is wrong says so itself.
    let fits = meant.is_none_or(|template| {
        let giver = Giver { what: "a schedule", table: "params", whole: span };
        check_given(template, &answers, giver, sheet)
    });
    let enabled = or_default(written.enabled.clone(), true);
    Some(meant::Schedule {
        template: template?,
        cron: cron?,
        timezone: timezone?,
        answers: fits.then_some(answers.value)?,
        enabled,
        overlap: match or_default(written.overlap.clone(), Overlap::Skip) {
            Overlap::Skip => meant::Overlap::Skip,
            Overlap::Queue => meant::Overlap::Queue,
        },
    })
}

/// The five fields with one space between each.
fn cron(written: &At<String>, sheet: &Sheet) -> Option<String> {
    let refused = |span: Span, why: String, hint: String| {
        sheet.error(span, Code::Schedule, why, Some(hint));
        None
    };
    let fields: Vec<_> = written.value.split_ascii_whitespace().collect();
    if let Some((nickname, cron)) = NICKNAMES.iter().find(|(nickname, _)| fields.as_slice() == [*nickname]) {
        let message = format!("`cron` has five fields, and `{nickname}` is none of them");
        return refused(written.span, message, format!("write \"{cron}\""));
    }
    if fields.len() != CRON_FIELDS {
        let message = format!("`cron` has five fields, and here are {}", fields.len());
        let hint = match fields.len() {
            6 => {
                "write minute, hour, day of the month, month and day of the week; the time zone is `timezone`, and there are no seconds"
            }
            _ => "write minute, hour, day of the month, month and day of the week, as in \"30 4 * * MON-FRI\"",
        };
        return refused(written.span, message, hint.to_owned());
    }
    if [fields.get(2), fields.get(4)].into_iter().flatten().any(|field| is_last(field)) {
        let hint = "write days, such as 28, or several schedules with the months that have 30 and 31".to_owned();
        return refused(written.span, "`L`, the last day, is not taken in `cron`".to_owned(), hint);
    }
    let cron = fields.join(" ");
    match parse(&cron) {
        Err(error) => {
            // The last line of what it says is a caret under the mistake, and the reason.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            let (before, reason) = last.split_once("^ ").unwrap_or(("", last));
            let span = within_quotes(written, &cron, before.len(), sheet);
            let hint = "the fields are minute (0-59), hour (0-23), day of the month (1-31), month (1-12 or JAN-DEC) and day of the week (0-7 or SUN-SAT)";
            refused(span, format!("`cron` makes no sense: {reason}"), hint.to_owned())
        }
        Ok(parsed) if !ever_fires(&parsed) => {
            let hint = "no month has such a day: look at the day of the month and the month".to_owned();
            refused(written.span, format!("`cron` never fires: the time `{cron}` never comes"), hint)
        }
        Ok(_) => Some(cron),
    }
}

/// Whether a day field means a last day. The library that looks for times finds none of those in December.
fn is_last(field: &str) -> bool {
    field.split(',').any(|part| part.ends_with(['L', 'l']) && !part.eq_ignore_ascii_case("jul"))
}

fn ever_fires(cron: &Crontab) -> bool {
    cronexpr::MakeTimestamp::from_second(LOOKED_FOR_FROM_UNIX_SECONDS).is_ok_and(|from| cron.find_next(from).is_ok())
}

/// Where the character at `offset` of the value stands in the file; the whole value where it is not written as it is.
fn within_quotes(written: &At<String>, value: &str, offset: usize, sheet: &Sheet) -> Span {
    let Span { start, end, source } = written.span;
    let raw = sheet.text().get(start..end).unwrap_or_default();
    if raw != format!("\"{value}\"") && raw != format!("'{value}'") {
        return written.span;
    }
    let field = value.get(offset..).map_or(0, |rest| rest.find(' ').unwrap_or(rest.len()));
    Span { start: start + 1 + offset, end: start + 1 + offset + field.max(1), source }
}

fn timezone(written: Option<&At<String>>, sheet: &Sheet) -> Option<String> {
    let Some(written) = written else { return Some(TIMEZONE.to_owned()) };
    if let Ok(zone) = ZONES.get(&written.value) {
        return Some(zone.iana_name().unwrap_or(&written.value).to_owned());
    }
    let known: Vec<_> = ZONES.available().map(|name| name.to_string()).collect();
    let hint = did_you_mean(&written.value, known.iter().map(String::as_str))
        .unwrap_or_else(|| "write an IANA name such as \"Europe/Berlin\" or \"UTC\"".to_owned());
    sheet.error(written.span, Code::Schedule, format!("no time zone is named `{}`", written.value), Some(hint));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(cron: &str) -> Result<String, (String, u32)> {
        let text = format!("cron = \"{cron}\"");
        let sheet = Sheet::new("a.toml", text.as_str());
        let at = At { value: cron.to_owned(), span: Span { start: 7, end: text.len(), source: 0 } };
        let read = super::cron(&at, &sheet);
        read.ok_or_else(|| sheet.finish().pop().map(|found| (found.message, found.column)).expect("a mistake"))
    }

    #[test]
    fn a_time_that_comes_is_taken() {
        for good in ["0 4 * * *", "*/5 8-18 * * MON-FRI", "0 0 29 2 *", "0 0 31 * 1", "0 0 30 2 1"] {
            assert_eq!(checked(good).as_deref(), Ok(good));
        }
        assert_eq!(checked("0  4 * *   *").as_deref(), Ok("0 4 * * *"));
    }

    #[test]
    fn a_time_that_never_comes_is_refused() {
        for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31 2 *"] {
            let (message, _) = checked(never).expect_err(never);
            assert!(message.contains("never fires"), "{never}: {message}");
        }
    }

    #[test]
    fn a_wrong_field_is_pointed_at() {
        for (wrong, column) in [("60 4 * * *", 9), ("0 4 * 13 *", 15), ("0 4 * * MOM", 17), ("0 9-8 * * *", 11)] {
            let (message, found) = checked(wrong).expect_err(wrong);
            assert_eq!(found, column, "{wrong}: {message}");
        }
        for wrong in [
            "",
            "* * * *",
            "0 0 4 * * *",
            "@daily",
            "0 4 * * * Europe/Berlin",
            "H * * * *",
            "59 23 L * *",
            "0 0 * * 5L",
        ] {
            assert!(checked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_zone_exists_whatever_the_machine_has() {
        let sheet = Sheet::new("a.toml", "");
        let zone = |name: &str| timezone(Some(&At { value: name.to_owned(), span: Span::FILE }), &sheet);
        assert_eq!(zone("Europe/Berlin").as_deref(), Some("Europe/Berlin"));
        assert_eq!(zone("america/new_york").as_deref(), Some("America/New_York"));
        assert_eq!(zone("UTC").as_deref(), Some("UTC"));
        assert_eq!((zone("Europe/Berln"), zone("")), (None, None));
        assert!(sheet.finish().iter().any(|found| found.hint.as_deref() == Some("did you mean `Europe/Berlin`?")));
    }
}
