//! Pages of listings that are made whole, in the order of their names: a page begins behind the name that its cursor holds, so that what
//! comes and goes meanwhile neither doubles nor hides another.

use forge_api::Page;
use forge_config::Name;
use schemars::JsonSchema;
use serde::Deserialize;

use super::limits;
use super::problem::Refusal;

/// Parts the names of a cursor.
const SEPARATOR: char = '/';

/// What such a listing takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListingQuery {
    /// `next_cursor` of the page before, unchanged.
    cursor: Option<String>,
    /// How many a page has, 500 at most and without.
    #[schemars(range(min = 1, max = limits::PAGE_ITEMS_MAX))]
    limit: Option<u32>,
}

/// The page that the query asks for of all items; `names` are what one is found by, and what they stand in the order of.
pub(super) fn page<T, const N: usize>(
    mut items: Vec<T>,
    query: ListingQuery,
    names: impl Fn(&T) -> [&str; N],
) -> Result<Page<T>, Refusal> {
    let limit = limits::bounded("limit", query.limit, limits::PAGE_ITEMS_MAX, limits::PAGE_ITEMS_MAX)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if let Some(cursor) = query.cursor {
        let last: Vec<&str> = cursor.split(SEPARATOR).collect();
        if last.len() != N || last.iter().any(|name| name.parse::<Name>().is_err()) {
            return Err(Refusal::invalid(format!("{cursor:?} is no cursor"))
                .hint("hand back `next_cursor` of the page before, unchanged"));
        }
        items.retain(|item| &names(item)[..] > last.as_slice());
    }
    let there_is_more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| there_is_more);
    let next_cursor = last.map(|item| names(item).join(&SEPARATOR.to_string()));
    Ok(Page { items, next_cursor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_the_names_whatever_comes_and_goes() {
        // In the order of the tree, which is that of the parts: a project's name may be the start of another's.
        let mut there = vec![["shop", "a"], ["shop", "b"], ["shop-2", "a"], ["shop-2", "b"]];
        let ask = |there: &[[&'static str; 2]], cursor: Option<&str>| {
            let query = ListingQuery { cursor: cursor.map(str::to_owned), limit: Some(2) };
            page(there.to_vec(), query, |names| *names).expect("a page")
        };
        let first = ask(&there, None);
        assert_eq!((first.items, first.next_cursor.as_deref()), (there[..2].to_vec(), Some("shop/b")));
        there.remove(1);
        there.insert(0, ["bank", "z"]);
        let second = ask(&there, Some("shop/b"));
        assert_eq!((second.items, second.next_cursor), (vec![["shop-2", "a"], ["shop-2", "b"]], None));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for cursor in ["", "shop", "shop/a/b", "shop/", "/a", "Shop/a", "shop/a b"] {
            let query = ListingQuery { cursor: Some(cursor.to_owned()), limit: None };
            let refused = page(vec![["shop", "a"]], query, |names| *names);
            assert_eq!(refused.expect_err("refused").status(), 400, "{cursor:?}");
        }
    }
}
