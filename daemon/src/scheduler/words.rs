//! Durations in the words of the TOML, and the nearest of some names. Pure.

/// A duration as a person writes it in the tree: the largest unit that divides it, `90s` and not `1m30s`.
pub(crate) fn duration(duration_ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    UNITS
        .into_iter()
        .find(|(unit_ms, _)| duration_ms >= *unit_ms && duration_ms.is_multiple_of(*unit_ms))
        .map_or_else(|| format!("{duration_ms}ms"), |(unit_ms, unit)| format!("{}{unit}", duration_ms / unit_ms))
}

/// A duration rounded down to its largest unit, as in "offline for 12m".
pub(crate) fn about(duration_ms: u64) -> String {
    match duration_ms {
        0..60_000 => format!("{}s", duration_ms / 1_000),
        60_000..3_600_000 => format!("{}m", duration_ms / 60_000),
        3_600_000..172_800_000 => format!("{}h", duration_ms / 3_600_000),
        172_800_000.. => format!("{}d", duration_ms / 86_400_000),
    }
}

/// The name that was likely meant: at most a third of its letters differ.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .map(|name| (edits(wanted, name), name))
        .filter(|(edits, name)| *edits <= name.chars().count().max(wanted.chars().count()).div_ceil(3))
        .min()
        .map(|(_, name)| name.to_owned())
}

/// How many letters must be put in, taken out or changed to make one text the other.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = line;
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
        let mut left = line + 1;
        for (cell, known) in row.iter_mut().skip(1).zip(&other) {
            let changed = diagonal + usize::from(letter != *known);
            diagonal = *cell;
            *cell = changed.min(left + 1).min(diagonal + 1);
            left = *cell;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_they_are_written() {
        for (duration_ms, words) in [(500, "500ms"), (90_000, "90s"), (120_000, "2m"), (86_400_000, "1d")] {
            assert_eq!(duration(duration_ms), words);
        }
        assert_eq!(about(725_000), "12m");
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["deploy", "destroy", "hello"];
        assert_eq!(nearest("deplyo", names.into_iter()).as_deref(), Some("deploy"));
        assert_eq!(nearest("x", names.into_iter()), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
