//! One request to a daemon, for what it tells: whether it is there, whether its certificate is believed, what its clock says, whether
//! it knows a token.

use std::time::{Duration, SystemTime};

use forge_api::{API_PREFIX, Problem};
use forge_runner::trust::{self, Trust};

use super::Findings;

/// How long the daemon may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// How far the clocks may be apart. Jobs are refused from five minutes on; whoever is a minute off soon is five.
const CLOCK_SKEW_S_MAX: u64 = 60;

/// What a daemon answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) problem: Option<Problem>,
}

/// Asks `path` of the API at `base` and looks at reachability, certificate and clock on the way; `None` when nothing answered.
pub(super) async fn ask(
    findings: &mut Findings,
    base: &str,
    trust: &Trust,
    path: &str,
    token: Option<&str>,
) -> Option<Answer> {
    let base = base.trim_end_matches('/');
    let client = match trust::http_client(trust) {
        Ok(client) => client,
        Err(error) => {
            findings.error("certificate", error.to_string(), "correct the CA in the settings");
            return None;
        }
    };
    let mut request = client.get(format!("{base}{API_PREFIX}{path}")).timeout(ANSWER_TIMEOUT);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let before = SystemTime::now();
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            let (words, mend) = split(&trust::explain(&error, base));
            let check = if words.contains("certificate") { "certificate" } else { "daemon" };
            findings.error(check, words, mend);
            return None;
        }
    };
    let after = SystemTime::now();
    let date = response.headers().get(reqwest::header::DATE).and_then(|date| date.to_str().ok().map(str::to_owned));
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap_or_default();
    let problem = serde_json::from_slice::<Problem>(&body).ok();
    if !(200..300).contains(&status) && problem.is_none() {
        findings.error(
            "daemon",
            format!("what answers at {base} is no Forge daemon (HTTP {status})"),
            "correct the URL; is a proxy in between?",
        );
        return None;
    }
    findings.ok("daemon", format!("a daemon answers at {base}"));
    findings.ok("certificate", "its certificate is believed");
    clock(findings, date.as_deref(), before, after);
    Some(Answer { status, problem })
}

/// Compares this machine's clock with the one that the answer names.
fn clock(findings: &mut Findings, date: Option<&str>, before: SystemTime, after: SystemTime) {
    let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        findings.note("clock", "the daemon's answer names no time", "a proxy in between may have taken it out");
        return;
    };
    // The answer names a whole second between the two moments: what lies outside them is skew.
    let behind = theirs.duration_since(after).unwrap_or_default().as_secs();
    let ahead = before.duration_since(theirs + Duration::from_secs(1)).unwrap_or_default().as_secs();
    let (seconds, way) = if behind > 0 { (behind, "behind") } else { (ahead, "ahead of") };
    if seconds > CLOCK_SKEW_S_MAX {
        findings.error(
            "clock",
            format!("this machine's clock is {seconds} s {way} the daemon's"),
            "set both by NTP (`timedatectl set-ntp true`): jobs are refused from five minutes on",
        );
    } else {
        findings.ok("clock", "this machine's clock goes with the daemon's");
    }
}

/// An explanation in two parts: what is wrong, and what to do.
fn split(words: &str) -> (String, String) {
    for between in ["; ", ": "] {
        if let Some((what, mend)) = words.rsplit_once(between).filter(|(_, mend)| !mend.is_empty()) {
            return (what.to_owned(), mend.to_owned());
        }
    }
    (words.to_owned(), "see that the daemon runs, and that nothing between keeps it from answering".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Standing;

    #[test]
    fn a_clock_is_compared_with_the_moments_around_the_answer() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let standing = |date: u64, before: u64, after: u64| {
            let mut findings = Findings::default();
            clock(&mut findings, Some(&httpdate::fmt_http_date(at(date))), at(before), at(after));
            findings.0.remove(0)
        };
        assert_eq!(standing(1_000, 1_000, 1_010).status, Standing::Ok);
        assert_eq!(standing(1_000, 1_061, 1_061).status, Standing::Ok);
        let ahead = standing(1_000, 1_200, 1_201);
        assert_eq!(ahead.status, Standing::Error);
        assert!(ahead.message.contains("199 s ahead of"), "{}", ahead.message);
        let behind = standing(5_000, 1_000, 1_000);
        assert!(behind.message.contains("4000 s behind"), "{}", behind.message);
    }
}
