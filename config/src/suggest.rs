//! "Did you mean": the nearest of the names that exist. It keeps silent when nothing is near, since a far guess misleads.

/// How alike two names must be, from 0 to 1, to be taken for one another.
const LIKENESS_MIN: f64 = 0.75;

/// The candidate most like `name`, when one is like it at all.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |candidate: &str| {
        let (name, candidate) = (name.to_lowercase(), candidate.to_lowercase());
        // One typing mistake in a short name is a large part of it, so a distance of one always counts.
        match strsim::damerau_levenshtein(&name, &candidate) {
            0 | 1 => 1.0,
            _ => strsim::jaro_winkler(&name, &candidate),
        }
    };
    candidates
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

/// The nearest candidate as a hint.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|near| format!("did you mean `{near}`?"))
}

/// `a`, `b` and `c`, for a message.
pub(crate) fn list_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    joined(words, "and")
}

/// `a`, `b` or `c`, for a message.
pub(crate) fn either_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    joined(words, "or")
}

fn joined<'a>(words: impl IntoIterator<Item = &'a str>, conjunction: &str) -> String {
    let words: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} {conjunction} {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_suggested() {
        let names = ["shell", "ansible", "terraform"];
        for (name, near) in
            [("shel", Some("shell")), ("Shell", Some("shell")), ("terrafrom", Some("terraform")), ("python", None)]
        {
            assert_eq!(nearest(name, names), near, "{name}");
        }
    }

    #[test]
    fn a_list_reads_as_a_sentence() {
        assert_eq!(list_of([]), "none");
        assert_eq!(list_of(["a"]), "`a`");
        assert_eq!(list_of(["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(either_of(["a", "b"]), "`a` or `b`");
    }
}
