//! `projects/<project>/integrations/<integration>.toml` as it is written.

use toml::Spanned;
use toml::de::DeValue;

use crate::written::declare::{choice, written};
use crate::written::reader::{Named, Place, Shape, Written};
use crate::written::secret::Secret;
use crate::written::sheet::At;

written! {
    /// An integration: a program elsewhere starts a template's tasks with `POST /hooks/<project>/<integration>`.
    hidden Integration {
        /// The template that is started.
        required template: String,
        /// How the sender proves itself: `github` signs with `X-Hub-Signature-256`, `hmac` with any HMAC-SHA256, `token` sends the secret itself.
        required auth: Auth,
        /// What the sender proves itself with, for every `auth` but `none`.
        optional secret: Secret,
        /// What a request must hold to start a task: all of them. Default: every request does.
        optional matches as "match": Vec<At<Match>>,
        /// Answers to the template's survey, by question: a JSON path, or a table that also takes a header or a part of the text.
        optional extract: Named<Extract>,
    }
}

choice! {
    /// How a sender proves itself.
    Auth { "github" => Github, "hmac" => Hmac, "token" => Token, "none" => None, }
}

written! {
    /// What a request must hold.
    hidden Match {
        /// The header that is looked at.
        optional header: String,
        /// The part of the JSON body that is looked at, by its path, as in `"$.repository.name"`.
        optional json: String,
        /// The text that it must be.
        optional equals: String,
        /// A regular expression that it must match; it is not anchored unless it says so.
        optional pattern: String,
    }
}

written! {
    /// Where an answer is found in a request.
    hidden ExtractTable {
        /// The header that holds it.
        optional header: String,
        /// The part of the JSON body that holds it, by its path, as in `"$.commits[0].id"`.
        optional json: String,
        /// A regular expression: its first group, or the whole match, is the answer.
        optional pattern: String,
    }
}

/// An answer's place: a JSON path alone, or a table.
#[derive(Clone, Debug)]
pub(crate) struct Extract(pub(crate) ExtractTable);

impl Written for Extract {
    fn shape() -> Shape {
        Shape::Either(Box::new(Shape::Text), Box::new(ExtractTable::shape()))
    }

    fn read(value: &Spanned<DeValue<'_>>, place: Place<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(path) => {
                let json = At { value: path.clone().into_owned(), span: place.span(value) };
                Some(Self(ExtractTable { json: Some(json), ..ExtractTable::default() }))
            }
            DeValue::Table(_) => ExtractTable::read(value, place).map(Self),
            _ => {
                place.wrong_type(value, "a JSON path such as \"$.ref\", or a table");
                None
            }
        }
    }
}
