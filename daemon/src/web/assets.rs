//! The stylesheet, the scripts and the icon: part of the binary, named by their content, so that a browser keeps each for good.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH};
use http::{HeaderValue, StatusCode};

use crate::hex;
use crate::http::problem::Refusal;

/// One file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asset {
    Style,
    Script,
    LogScript,
    Icon,
}

impl Asset {
    const ALL: [Self; 4] = [Self::Style, Self::Script, Self::LogScript, Self::Icon];

    const fn name(self) -> &'static str {
        match self {
            Self::Style => "forge.css",
            Self::Script => "forge.js",
            Self::LogScript => "log.js",
            Self::Icon => "icon.svg",
        }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Style => "text/css; charset=utf-8",
            Self::Script | Self::LogScript => "text/javascript; charset=utf-8",
            Self::Icon => "image/svg+xml",
        }
    }

    const fn content(self) -> &'static [u8] {
        match self {
            Self::Style => include_bytes!("assets/forge.css"),
            Self::Script => include_bytes!("assets/forge.js"),
            Self::LogScript => include_bytes!("assets/log.js"),
            Self::Icon => include_bytes!("assets/icon.svg"),
        }
    }
}

/// Each file's hash, in the order of [`Asset::ALL`]; made once.
static HASHES: LazyLock<[String; Asset::ALL.len()]> = LazyLock::new(|| {
    Asset::ALL.map(|asset| {
        let mut digest = hex::encode(ring::digest::digest(&ring::digest::SHA256, asset.content()).as_ref());
        digest.truncate(16);
        digest
    })
});

fn hash(asset: Asset) -> &'static str {
    let found = Asset::ALL.iter().zip(HASHES.iter()).find(|(known, _)| **known == asset);
    found.map_or("", |(_, hash)| hash)
}

/// Where a page finds a file.
pub(super) fn path(asset: Asset) -> String {
    format!("/assets/{}/{}", hash(asset), asset.name())
}

/// `GET /assets/{hash}/{name}`. Under another hash, as a page of another version asks for, the file is answered and not kept.
pub(crate) async fn asset(Path((asked, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let Some(asset) = Asset::ALL.into_iter().find(|asset| asset.name() == name) else {
        return Refusal::not_found("file", &name).into_response();
    };
    let tag = format!("\"{}\"", hash(asset));
    let cache = if asked == hash(asset) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let known = headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, asset.media_type())], asset.content()).into_response()
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside a page of at most as much again, this keeps the first visit below 100 KiB.
    const FIRST_VISIT_BYTES_MAX: usize = 40 * 1024;

    #[test]
    fn what_a_first_visit_loads_is_small() {
        let bytes: usize =
            [Asset::Style, Asset::Script, Asset::Icon].into_iter().map(|asset| asset.content().len()).sum();
        assert!(bytes < FIRST_VISIT_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn no_asset_names_another_origin() {
        for asset in [Asset::Style, Asset::Script, Asset::LogScript] {
            let text = String::from_utf8_lossy(asset.content());
            assert!(!text.contains("http:") && !text.contains("https:"), "{}", asset.name());
        }
    }

    #[tokio::test]
    async fn a_file_is_kept_under_its_own_hash_alone() {
        let get = |hash: &str, headers: HeaderMap| asset(Path((hash.to_owned(), "forge.css".to_owned())), headers);
        let fresh = get(hash(Asset::Style), HeaderMap::new()).await;
        assert!(fresh.headers()[CACHE_CONTROL].to_str().is_ok_and(|value| value.contains("immutable")));
        let tag = fresh.headers()[ETAG].clone();
        let other = get("0123", HeaderMap::from_iter([(IF_NONE_MATCH, tag)])).await;
        assert_eq!(other.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(other.headers()[CACHE_CONTROL], "no-cache");
    }
}
