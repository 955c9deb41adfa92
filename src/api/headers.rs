//! The headers of a request, strictly read: conditions, names of writes, positions, content types.
//!
//! A header that does not belong to a request is refused, and so is one that comes twice: to ignore a
//! condition is to break it. Does no I/O.

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::api::extract::invalid;
use crate::types::command::Condition;
use crate::types::error::Error;
use crate::types::http::{CONTENT_BYTES, CONTENT_JSON, HEADER_IDEMPOTENCY_KEY, HEADER_MIN_INDEX};
use crate::types::item::Version;
use crate::types::kv::GroupIndex;
use crate::types::limits::{CONDITION_VERSIONS_MAX, MIN_INDEXES_MAX};
use crate::types::once::IdempotencyKey;
use crate::types::value::ValueKind;

/// Headers of the contract that this version refuses: to ignore a condition is to break it.
const NOT_BUILT_HEADERS: &[&str] = &["if-unmodified-since"];

/// Refuses headers that ask for what this version does not do.
fn refuse_not_built(headers: &HeaderMap) -> Result<(), Error> {
    match NOT_BUILT_HEADERS.iter().find(|name| headers.contains_key(**name)) {
        Some(name) => Err(invalid(name, "this header is not supported by this version")),
        None => Ok(()),
    }
}

/// What a reader has already, by `If-None-Match`: versions in quotes, as `ETag` has them, or `*`. If it
/// holds, the answer is `304`.
pub(super) fn unless(headers: &HeaderMap) -> Result<Option<Condition>, Error> {
    refuse_not_built(headers)?;
    let for_writes = [IF_MATCH.as_str(), HEADER_IDEMPOTENCY_KEY];
    if let Some(name) = for_writes.into_iter().find(|name| headers.contains_key(*name)) {
        return Err(invalid(name, "only writes have it"));
    }
    match single(headers, &IF_NONE_MATCH)? {
        None => Ok(None),
        Some("*") => Ok(Some(Condition::Present)),
        Some(tags) => versions(&IF_NONE_MATCH, tags).map(Condition::Version).map(Some),
    }
}

/// What the state must have reached that is read: `<group>:<index>`, several with commas.
pub(super) fn at_least(headers: &HeaderMap) -> Result<Vec<GroupIndex>, Error> {
    let name = HeaderName::from_static(HEADER_MIN_INDEX);
    let Some(text) = single(headers, &name)? else { return Ok(Vec::new()) };
    positions(name.as_str(), text, MIN_INDEXES_MAX)
}

/// At most so many positions `<group>:<index>`, with commas, one of each group.
pub(super) fn positions(name: &str, text: &str, max: usize) -> Result<Vec<GroupIndex>, Error> {
    let bad = |reason| invalid(name, reason);
    let mut positions: Vec<GroupIndex> = Vec::new();
    for position in text.split(',').map(str::trim) {
        let expected = "expected <group>:<index> as in x-sage-index, several with commas";
        let position: GroupIndex = position.parse().map_err(|_| bad(expected))?;
        if positions.len() >= max {
            return Err(bad("too many positions"));
        }
        if positions.iter().any(|earlier| earlier.group == position.group) {
            return Err(bad("a group is named twice"));
        }
        positions.push(position);
    }
    Ok(positions)
}

/// Refuses what only reads can ask for.
fn refuse_at_least(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(HEADER_MIN_INDEX) {
        return Err(invalid(HEADER_MIN_INDEX, "only reads have it"));
    }
    Ok(())
}

/// Refuses what speaks of one key, or of a write, in a question about many.
pub(super) fn unconditional(headers: &HeaderMap) -> Result<(), Error> {
    refuse_not_built(headers)?;
    let for_one =
        [IF_MATCH.as_str(), IF_NONE_MATCH.as_str(), HEADER_IDEMPOTENCY_KEY, HEADER_MIN_INDEX];
    match for_one.into_iter().find(|name| headers.contains_key(*name)) {
        Some(name) => Err(invalid(name, "only requests about one key have it")),
        None => Ok(()),
    }
}

/// Refuses what a request about several keys does not have, which may have a name.
pub(super) fn only_a_name(headers: &HeaderMap) -> Result<(), Error> {
    refuse_not_built(headers)?;
    let for_one = [IF_MATCH.as_str(), IF_NONE_MATCH.as_str(), HEADER_MIN_INDEX];
    match for_one.into_iter().find(|name| headers.contains_key(*name)) {
        Some(name) => Err(invalid(name, "only requests about one key have it")),
        None => Ok(()),
    }
}

/// The name under which a write takes effect once.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Error> {
    let name = HeaderName::from_static(HEADER_IDEMPOTENCY_KEY);
    let text = single(headers, &name)?;
    let key = text.map(IdempotencyKey::new).transpose();
    key.map_err(|error| invalid(name.as_str(), error.to_string()))
}

/// The condition of a write: `If-Match` with versions in quotes, as `ETag` has them, or `*`; or
/// `If-None-Match: *`.
pub(super) fn condition(headers: &HeaderMap) -> Result<Option<Condition>, Error> {
    refuse_not_built(headers)?;
    refuse_at_least(headers)?;
    match (single(headers, &IF_MATCH)?, single(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(None),
        (Some("*"), None) => Ok(Some(Condition::Present)),
        (Some(tags), None) => versions(&IF_MATCH, tags).map(Condition::Version).map(Some),
        (None, Some("*")) => Ok(Some(Condition::Absent)),
        (None, Some(_)) => Err(invalid(IF_NONE_MATCH.as_str(), "only * is accepted on writes")),
        (Some(_), Some(_)) => {
            let reason = "it can't come together with if-none-match";
            Err(invalid(IF_MATCH.as_str(), reason))
        }
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid(name.as_str(), "given more than once"));
    }
    let text = value.to_str().map_err(|_| invalid(name.as_str(), "not plain text"))?;
    Ok(Some(text.trim()))
}

/// `"17", "18"`, at most [`CONDITION_VERSIONS_MAX`] of them.
fn versions(header: &HeaderName, tags: &str) -> Result<Vec<Version>, Error> {
    let bad = |reason| invalid(header.as_str(), reason);
    let expected = "expected a version in quotes, such as \"17\", several with commas, or *";
    let mut versions = Vec::new();
    for tag in tags.split(',').map(str::trim) {
        let digits = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let version = digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| bad(expected))?;
        if versions.len() >= CONDITION_VERSIONS_MAX {
            return Err(bad("too many versions"));
        }
        versions.push(version);
    }
    Ok(versions)
}

/// What kind of value a body is, by its content type.
pub(super) fn value_kind(headers: &HeaderMap) -> Result<ValueKind, Error> {
    let coding = headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        let name = CONTENT_ENCODING.as_str();
        return Err(invalid(name, "not supported; send the value as it is"));
    }
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let essence = content_type.split(|&byte| byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    Ok(if essence.eq_ignore_ascii_case(CONTENT_JSON.as_bytes()) {
        ValueKind::Json
    } else if essence.eq_ignore_ascii_case(CONTENT_BYTES.as_bytes()) {
        ValueKind::Bytes
    } else {
        ValueKind::Text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_essence_of_the_content_type_counts() {
        let kind = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().expect("a header"));
            value_kind(&headers).expect("a kind")
        };
        assert_eq!(kind("Application/JSON; charset=utf-8"), ValueKind::Json);
        assert_eq!(kind("application/octet-stream"), ValueKind::Bytes);
        assert_eq!(kind("application/json-seq"), ValueKind::Text);
        assert_eq!(kind("application/x-www-form-urlencoded"), ValueKind::Text);
        assert_eq!(value_kind(&HeaderMap::new()), Ok(ValueKind::Text));
    }

    #[test]
    fn a_condition_is_versions_or_a_star() {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().expect("a header"));
            }
            condition(&headers).map_err(|error| error.code())
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("if-match", "*")]), Ok(Some(Condition::Present)));
        assert_eq!(of(&[("if-none-match", " * ")]), Ok(Some(Condition::Absent)));
        let versions = |versions: &[Version]| Ok(Some(Condition::Version(versions.to_vec())));
        assert_eq!(of(&[("if-match", "\"17\"")]), versions(&[17]));
        assert_eq!(of(&[("if-match", "\"0\" ,\"18\"")]), versions(&[0, 18]));
        let bad = ["17", "W/\"17\"", "\"\"", "\"a\"", "\"-1\"", "\"1\",", "", "\"+1\"", "*, \"1\""];
        for bad in bad {
            assert_eq!(of(&[("if-match", bad)]), Err("invalid_parameter"), "{bad}");
        }
        let huge = "\"99999999999999999999\"";
        let many = vec!["\"1\""; CONDITION_VERSIONS_MAX + 1].join(",");
        for pairs in [
            &[("if-none-match", "\"17\"")][..],
            &[("if-match", "*"), ("if-none-match", "*")],
            &[("if-match", "\"1\""), ("if-match", "\"2\"")],
            &[("if-match", huge)],
            &[("if-match", many.as_str())],
            &[("if-unmodified-since", "x")],
        ] {
            assert_eq!(of(pairs), Err("invalid_parameter"), "{pairs:?}");
        }
    }

    #[test]
    fn a_reader_says_which_versions_it_has() {
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.append(name, value.parse().expect("a header"));
            unless(&headers).map_err(|error| error.code())
        };
        assert_eq!(unless(&HeaderMap::new()), Ok(None));
        assert_eq!(of("if-none-match", "*"), Ok(Some(Condition::Present)));
        let versions = Condition::Version(vec![17, 18]);
        assert_eq!(of("if-none-match", "\"17\", \"18\""), Ok(Some(versions)));
        assert_eq!(of("if-none-match", "17"), Err("invalid_parameter"));
        assert_eq!(of("if-match", "\"17\""), Err("invalid_parameter"));
        assert_eq!(of("idempotency-key", "a"), Err("invalid_parameter"));
    }

    #[test]
    fn a_reader_says_what_it_has_seen() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.append("x-sage-min-index", value.parse().expect("a header"));
            at_least(&headers).map_err(|error| error.code())
        };
        assert_eq!(at_least(&HeaderMap::new()), Ok(Vec::new()));
        let at = |group: &str, index| GroupIndex { group: group.into(), index };
        assert_eq!(of("eu-1:17"), Ok(vec![at("eu-1", 17)]));
        assert_eq!(of("a:0 , b:18446744073709551615"), Ok(vec![at("a", 0), at("b", u64::MAX)]));
        let many = (0..=MIN_INDEXES_MAX).map(|group| format!("{group}:1")).collect::<Vec<_>>();
        for bad in ["", "17", ":17", "a:", "a:-1", "a:+1", "a:1,", "a:1,a:2", &many.join(",")] {
            assert_eq!(of(bad), Err("invalid_parameter"), "{bad}");
        }
    }

    #[test]
    fn an_idempotency_key_is_one_short_word() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("idempotency-key", value.parse().expect("a header"));
            }
            idempotency_key(&headers).map_err(|error| error.code())
        };
        assert_eq!(of(&[]), Ok(None));
        let key = IdempotencyKey::new("8e03978e-40d5").expect("a key");
        assert_eq!(of(&["8e03978e-40d5"]), Ok(Some(key)));
        for bad in [&[""][..], &["two words"], &[&"x".repeat(65)], &["a", "b"], &["a", "a"]] {
            assert_eq!(of(bad), Err("invalid_parameter"), "{bad:?}");
        }
    }
}
