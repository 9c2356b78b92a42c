//! A mistake, drawn on the user's own line. It knows its place and its words; it never holds a secret, and it refuses to send control
//! characters of a file to a terminal.

use std::fmt;
use std::fmt::Write as _;

use serde::{Serialize, Serializer};

/// How bad a diagnostic is. Only an error keeps a tree or settings from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is applied.
    Error,
    /// Applied, and likely not what was meant.
    Warning,
    /// Applied; something is not used.
    Note,
}

impl Severity {
    /// Its name: `error`, `warning` or `note`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Declares the codes once: their number, their name, what they mean and what to do.
macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $name:ident = $text:literal => $remedy:literal,)+) => {
        /// What kind of mistake it is. A code keeps its meaning for good; a new kind of mistake gets a new one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl Code {
            /// Every code, by number.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code as people see it, such as `FORGE-C012`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// What it means, for the reference page.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($meaning),+).trim_ascii(),)+
                }
            }

            /// What to do about it, for the reference page.
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$name => $remedy,)+
                }
            }
        }
    };
}

codes! {
    /// The file is not TOML.
    Syntax = "FORGE-C001" =>
        "Mend the line that is shown; the caret stands where the parser gave up, so the cause may be a little before it. Nothing else is said of a file that is no TOML, since half a file is full of false mistakes.",
    /// The file is not UTF-8 text.
    NotText = "FORGE-C002" =>
        "Save the file as UTF-8. An editor that writes Latin-1 or UTF-16 is the usual cause.",
    /// The file, or a value in it, is larger than Forge takes.
    TooLarge = "FORGE-C003" =>
        "Split the file up, or take out what nobody needs. Every limit is there so that one commit cannot exhaust the daemon.",
    /// A key that this kind of object does not have.
    UnknownKey = "FORGE-C004" =>
        "Take the key out or write the one that was meant; the hint names the nearest one. Forge refuses unknown keys, since a misspelled one would otherwise be a setting that silently does nothing.",
    /// A value of another type than the key takes.
    WrongType = "FORGE-C005" =>
        "Write a value of the type that the message names. Numbers and booleans stand without quotes; durations, sizes and names with them.",
    /// A key that must be there is not.
    MissingKey = "FORGE-C006" =>
        "Add the key; the hint shows what its value may look like.",
    /// A value of the right type that makes no sense.
    BadValue = "FORGE-C007" =>
        "Write a value within the bounds or of the form that the message names.",
    /// The name of a file or folder is no name of an object.
    BadName = "FORGE-C008" =>
        "Rename it. Names of objects have `a-z`, `0-9` and `-`, begin with a letter or digit, and have at most 63 characters; names of variables and of questions have rules of their own.",
    /// A TOML file where Forge reads none.
    UnknownPlace = "FORGE-C009" =>
        "Move or rename the file; the hint says where such files are read. Files whose names do not end in `.toml`, dotfiles and dot folders may lie anywhere.",
    // FORGE-C010 was for what an earlier version read and did not act upon: its number is not given again.
    /// A project's folder has no project.toml.
    ProjectFileMissing = "FORGE-C011" =>
        "Make `project.toml` in the project's folder. It may be empty: every key has a default.",
    /// The named object does not exist.
    UnknownReference = "FORGE-C012" =>
        "Write the name of an object that exists (the hint names the nearest one), or make its file. References stay within a project, but for plugins, runners, tokens and webhook targets.",
    /// The named object exists and is of the wrong kind.
    WrongKind = "FORGE-C013" =>
        "Name an object of a kind that fits: an executor for a template, a webhook target for a webhook, a key of the right type for a repository or an inventory.",
    /// A plugin's component is missing or cannot be used.
    PluginUnusable = "FORGE-C014" =>
        "Put the component where `source` says, write `builtin:NAME` for a built-in one, or get one that was built for this version's interface. `forge plugin check FILE` says more about a component.",
    /// A plugin's SHA-256 is missing or is not that of its component.
    PluginDigest = "FORGE-C015" =>
        "Review the component, then write the digest that the message names. The digest is what makes a change of a plugin visible in a review: never copy it unread.",
    /// The executor's schema refuses the template's params.
    Params = "FORGE-C016" =>
        "Write what the executor's schema takes; the message names the key. The executor's README lists its params.",
    /// The plugin's schema refuses its config.
    PluginConfig = "FORGE-C017" =>
        "Write what the plugin's schema takes below `[config]`; the message names the key.",
    /// A secret stands in the file in clear.
    PlainSecret = "FORGE-C018" =>
        "Replace the secret, since it is in git's history now, and write where its new value comes from: `{ file = ... }`, `{ env = ... }`, `{ credential = ... }`, or `{ age = ... }` as `forge secret encrypt` prints it.",
    /// The project may not use this file, variable or credential of the daemon's host.
    SecretNotAllowed = "FORGE-C019" =>
        "On the daemon's host, list it in forge.toml below `[secrets.allow.<project>]` (`[secrets.allow.webhooks]` for webhook targets, `[secrets.allow.plugins]` for `[config]` of plugins). Nothing is allowed by default, so that one project's commit does not reach another's secrets.",
    /// A repository's URL is refused.
    RepositoryUrl = "FORGE-C020" =>
        "Write an https, ssh or file URL, `user@host:path`, or an absolute path. Passwords belong into a key of the type `login_password`, and transports that run commands are refused.",
    /// A branch's name is no valid git reference.
    Branch = "FORGE-C021" =>
        "Write the branch's name as `git branch` shows it.",
    /// A path is absolute, or leaves the folder that it belongs to.
    Path = "FORGE-C022" =>
        "Write a relative path below the folder that the message names, without `..`.",
    /// A question of a survey contradicts itself.
    Survey = "FORGE-C023" =>
        "Make the question agree with itself: its default must pass its own rules, and each key must go with its type.",
    /// Keys that do not go together.
    Conflict = "FORGE-C024" =>
        "Keep one of the two. The message names both.",
    /// No runner has the tag that a task would need.
    TagWithoutRunner = "FORGE-C025" =>
        "Give a runner the tag in `runners/NAME.toml`, or a registration token that registers such runners, or correct the tag. Until then such tasks wait, and expire after `queue_timeout`.",
    /// A secret of the settings stands in the file, where a file of its own is safer.
    InlineSecret = "FORGE-C026" =>
        "Put the secret into a file of mode 0600 and name the file. A settings file is read by more people and copied to more places than a secret should be.",
    /// Two tokens have the same hash.
    DuplicateHash = "FORGE-C027" =>
        "Make another token with `forge token new`, or delete one of the two files.",
    /// A web address or an address to listen on is refused.
    Address = "FORGE-C028" =>
        "Write the address in the form that the hint shows.",
    /// What is written has no effect.
    Unused = "FORGE-C029" =>
        "Take it out, or name it where it was meant to be used. Nothing depends on it.",
    /// A file or folder of the tree cannot be read.
    Unreadable = "FORGE-C030" =>
        "Make it readable for the daemon's user, or delete it. A symlink must lead to something inside the tree.",
    /// An age value does not open, or was encrypted for another project.
    SecretLocked = "FORGE-C031" =>
        "Encrypt the value anew with `forge secret encrypt --project P` for the project in whose folder it stands, after `secrets.toml` lists the daemon's recipient. `forge secret rekey DIR` does that for a whole tree when recipients change.",
    /// The daemon's age identity is missing or cannot be read.
    NoIdentity = "FORGE-C032" =>
        "On the daemon's host, set `identity_file` below `[secrets]` of forge.toml to the file that `forge secret keygen --output FILE` wrote, and let only the daemon's user read it.",
    /// A schedule's time makes no sense, or never comes.
    Schedule = "FORGE-C033" =>
        "Write five fields (minute, hour, day of the month, month, day of the week) that some day of the calendar fits, and the IANA name of a time zone. When both days are restricted, either of them fires, as in every cron.",
    /// An answer that a schedule or an integration gives does not fit the template's survey, or one is missing.
    Answers = "FORGE-C034" =>
        "Answer each question of the survey that has no default and needs an answer, and no others; or give the question a default. A secret question cannot be answered from git.",
    /// Anyone who reaches the daemon could do this: nothing, or something that is easily guessed, stands in the way.
    Unprotected = "FORGE-C035" =>
        "Make a random token with `forge token new`, or choose an `auth` that proves who sends.",
    /// A plugin asks for something, and nothing of the kind is granted.
    NotGranted = "FORGE-C036" =>
        "Grant what the plugin needs below `[allow]` of its file; the hint shows the line. An empty list says that it is to have none, and ends the note. What is not granted is refused when the plugin asks for it, by name.",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One mistake. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file's path as it was handed in (relative to the tree's root), or the name of an environment variable.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
    /// What kind of mistake it is.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The user's own line, with secrets replaced and a very long one cut; empty where there is none.
    pub source_line: String,
    /// Where in `source_line` the mistake begins: `column`, unless something before it was replaced or cut.
    pub source_column: u32,
    /// How many characters of the line it covers, at least 1.
    pub span_width: u32,
}

/// Whether to draw in colour. The colour is never the only carrier of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Never,
    /// With ANSI colours, for a terminal.
    Always,
}

impl Colour {
    fn paint(self, style: &str, text: &str) -> String {
        match self {
            Self::Never => text.to_owned(),
            Self::Always => format!("\x1b[{style}m{text}\x1b[0m"),
        }
    }
}

impl Diagnostic {
    /// Whether it keeps the tree or the settings from being used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Draws it: `file:line:column: error[CODE]: message`, the user's own line with a caret under the mistake, and the hint.
    /// There is no line break at the end.
    pub fn draw(&self, colour: Colour) -> String {
        let style = match self.severity {
            Severity::Error => "1;31",
            Severity::Warning => "1;33",
            Severity::Note => "1;36",
        };
        let (file, line, column) = (printable(&self.file), self.line, self.column);
        let label = format!("{}[{}]", self.severity.as_str(), self.code);
        let message = printable(&self.message);
        let mut drawn = format!("{file}:{line}:{column}: {}: {message}", colour.paint(style, &label));
        if !self.source_line.is_empty() {
            let number = line.to_string();
            let gutter = " ".repeat(number.len());
            let bar = |text: &str| colour.paint("1;34", text);
            let source: String = self.source_line.chars().map(printable_character).collect();
            let before = usize::try_from(self.source_column.saturating_sub(1)).unwrap_or(usize::MAX);
            let indent: usize = source.chars().take(before).map(cells).sum();
            let covered = usize::try_from(self.span_width).unwrap_or(usize::MAX);
            let carets: usize = source.chars().skip(before).take(covered).map(cells).sum();
            let carets = colour.paint(style, &"^".repeat(carets.max(1)));
            // Writing to a String cannot fail.
            let _ = write!(
                drawn,
                "\n{gutter} {}\n{} {} {source}\n{gutter} {} {}{carets}",
                bar("|"),
                bar(&number),
                bar("|"),
                bar("|"),
                " ".repeat(indent)
            );
        }
        if let Some(hint) = &self.hint {
            let hint = hint.lines().map(printable).collect::<Vec<_>>().join("\n      ");
            let _ = write!(drawn, "\n{} {hint}", colour.paint("1;32", "hint:"));
        }
        drawn
    }
}

/// `text` without anything that moves a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(printable_character).collect()
}

/// A tab becomes one space, so that the caret stands where the eye expects it; other control characters become a dot, and so do
/// the marks that turn the reading direction around and make a line look like another one.
fn printable_character(character: char) -> char {
    match character {
        '\t' => ' ',
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => '·',
        character if character.is_control() => '·',
        character => character,
    }
}

/// How many cells of a terminal a character takes: the common ranges of wide and combining characters, which is enough for a caret.
fn cells(character: char) -> usize {
    match u32::from(character) {
        0x0300..=0x036f | 0x1ab0..=0x1aff | 0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Diagnostic {
        Diagnostic {
            file: "projects/shop/templates/deploy.toml".into(),
            line: 3,
            column: 12,
            code: Code::UnknownReference,
            severity: Severity::Error,
            message: "no plugin is named `shel`".into(),
            hint: Some("did you mean `shell`?".into()),
            source_line: "executor = \"shel\"".into(),
            source_column: 12,
            span_width: 6,
        }
    }

    #[test]
    fn it_is_drawn_on_the_users_own_line() {
        let expected = "projects/shop/templates/deploy.toml:3:12: error[FORGE-C012]: no plugin is named `shel`\n  |\n\
                        3 | executor = \"shel\"\n  |            ^^^^^^\nhint: did you mean `shell`?";
        assert_eq!(sample().draw(Colour::Never), expected);
        assert!(sample().draw(Colour::Always).contains("\x1b[1;31merror[FORGE-C012]\x1b[0m"));
    }

    #[test]
    fn a_caret_stands_under_wide_characters_and_after_tabs() {
        let wide = Diagnostic { source_line: "\tü日 = x".into(), source_column: 7, span_width: 1, ..sample() };
        assert!(wide.draw(Colour::Never).contains("3 |  ü日 = x\n  |        ^\n"), "{}", wide.draw(Colour::Never));
    }

    #[test]
    fn a_file_cannot_drive_the_terminal() {
        let hostile = Diagnostic {
            source_line: "a = \"\x1b[2J\"".into(),
            message: "x\u{202e}\r".into(),
            hint: Some("\x07".into()),
            ..sample()
        };
        let drawn = hostile.draw(Colour::Never);
        assert!(!drawn.contains(['\x1b', '\r', '\x07', '\u{202e}']), "{drawn:?}");
    }

    #[test]
    fn codes_are_numbered_in_their_order_and_explained() {
        // What is not raised any more keeps its number from being given again.
        let given = (1..).filter(|number| *number != 10).map(|number: u32| format!("FORGE-C{number:03}"));
        for (code, expected) in Code::ALL.iter().zip(given) {
            assert_eq!(code.as_str(), expected);
            assert!(code.meaning().ends_with('.'), "{code}");
        }
    }

    proptest! {
        #[test]
        fn drawing_never_panics(source_line in ".*", message in ".*", hint in proptest::option::of("(?s).*"), source_column in any::<u32>(),
                                span_width in any::<u32>(), line in any::<u32>()) {
            let any = Diagnostic { source_line, message, hint, source_column, span_width, line, ..sample() };
            let _ = any.draw(Colour::Always);
            let drawn = any.draw(Colour::Never);
            prop_assert!(drawn.chars().all(|c| c == '\n' || !c.is_control()));
        }
    }
}
