//! The query and the headers of a request, strictly read.
//!
//! A parameter that is not known, comes twice or has a value that is not known is refused by
//! name: a misspelt `consistency` that was ignored would be a lie. Percent escapes must be whole
//! and their bytes UTF-8; `+` is a space, as in forms. Headers that ask for what is not built yet
//! are refused too. Does no I/O.

use std::time::Duration;

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::types::command::Condition;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::http::{CONTENT_BYTES, CONTENT_JSON, HEADER_IDEMPOTENCY_KEY, HEADER_MIN_INDEX};
use crate::types::item::Version;
use crate::types::key::Key;
use crate::types::kv::{Consistency, GroupIndex};
use crate::types::limits::{
    CONDITION_VERSIONS_MAX, MIN_INDEXES_MAX, REQUEST_TIMEOUT_DEFAULT, REQUEST_TIMEOUT_MAX,
};
use crate::types::once::IdempotencyKey;
use crate::types::units::parse_duration;
use crate::types::value::ValueKind;

/// The key.
pub(super) const KEY: &str = "key";
/// How long the request may take.
pub(super) const TIMEOUT: &str = "timeout";
/// How fresh a read must be.
pub(super) const CONSISTENCY: &str = "consistency";
/// Whether a read answers with the bare value.
pub(super) const RAW: &str = "raw";

/// Parameters of the contract that this version refuses with a word of its own.
const NOT_BUILT_PARAMETERS: &[&str] = &["ttl"];
/// Headers of the contract that this version refuses: to ignore a condition is to break it.
const NOT_BUILT_HEADERS: &[&str] = &["if-unmodified-since"];
/// The most characters of a parameter's name that an error repeats.
const NAME_CHARS_SHOWN: usize = 64;

/// The parameters of one request: each known to its path, each at most once.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// Reads the query of `uri`, which may have the parameters `accepted`.
    pub(super) fn parse(uri: &Uri, accepted: &[&str]) -> Result<Self, Error> {
        let mut pairs: Vec<(String, Vec<u8>)> = Vec::with_capacity(accepted.len());
        let query = uri.query().unwrap_or_default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8(decode(name)?)
                .map_err(|_| Error::InvalidUtf8("the name of a parameter".into()))?;
            if NOT_BUILT_PARAMETERS.contains(&name.as_str()) {
                return Err(invalid(&name, "not supported by this version"));
            }
            if !accepted.contains(&name.as_str()) {
                let known = accepted.join(", ");
                return Err(invalid(&name, format!("unknown; accepted here: {known}")));
            }
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(invalid(&name, "given more than once"));
            }
            pairs.push((name, decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// The key, which must be there.
    pub(super) fn key(&self) -> Result<Key, Error> {
        let bytes = self.bytes(KEY).ok_or(Error::MissingKey)?;
        Ok(Key::new(bytes.to_vec())?)
    }

    /// When the request must have ended, from now on.
    pub(super) fn deadline(&self) -> Result<Deadline, Error> {
        let Some(text) = self.text(TIMEOUT)? else {
            return Ok(Deadline::after(REQUEST_TIMEOUT_DEFAULT));
        };
        let timeout = parse_duration(text).map_err(|error| invalid(TIMEOUT, error.to_string()))?;
        if timeout.is_zero() || timeout > REQUEST_TIMEOUT_MAX {
            let max = REQUEST_TIMEOUT_MAX.as_secs();
            return Err(invalid(TIMEOUT, format!("out of range; more than 0, at most {max}s")));
        }
        Ok(Deadline::after(timeout))
    }

    /// How fresh the read must be.
    pub(super) fn consistency(&self) -> Result<Consistency, Error> {
        match self.text(CONSISTENCY)? {
            None | Some("linearizable") => Ok(Consistency::Linearizable),
            Some("lease") => Ok(Consistency::Lease),
            Some("stale") => Ok(Consistency::Stale),
            Some(_) => Err(invalid(CONSISTENCY, "unknown; one of linearizable, lease, stale")),
        }
    }

    /// Whether the answer is to be the bare value.
    pub(super) fn raw(&self) -> Result<bool, Error> {
        match self.text(RAW)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(RAW, "unknown; true or false")),
        }
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_slice())
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        let text = self.bytes(name).map(std::str::from_utf8).transpose();
        text.map_err(|_| Error::InvalidUtf8(format!("parameter {name}")))
    }
}

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
    let bad = |reason| invalid(name.as_str(), reason);
    let expected = "expected <group>:<index> as in x-sage-index, several with commas";
    let mut positions: Vec<GroupIndex> = Vec::new();
    for position in text.split(',').map(str::trim) {
        let (group, index) = position.rsplit_once(':').ok_or_else(|| bad(expected))?;
        let digits = index.bytes().all(|byte| byte.is_ascii_digit());
        let index = index.parse().ok().filter(|_| digits).ok_or_else(|| bad(expected))?;
        if group.is_empty() {
            return Err(bad(expected));
        }
        if positions.len() >= MIN_INDEXES_MAX {
            return Err(bad("too many positions"));
        }
        if positions.iter().any(|earlier| *earlier.group == *group) {
            return Err(bad("a group is named twice"));
        }
        positions.push(GroupIndex { group: group.into(), index });
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

/// The time that a store is given of the time that is left: all but a margin, so that its own
/// answer comes before ours.
pub(super) fn with_margin(deadline: Deadline, margin: Duration) -> Deadline {
    let left = deadline.left();
    deadline.at_most(left.saturating_sub(margin.min(left / 10)))
}

fn invalid(name: &str, reason: impl Into<String>) -> Error {
    let name = name.chars().take(NAME_CHARS_SHOWN).collect();
    Error::InvalidParameter { name, reason: reason.into() }
}

/// Undoes form encoding: `%41` is `A`, `+` is a space.
fn decode(text: &str) -> Result<Vec<u8>, Error> {
    let bad = || Error::BadRequest("a % without two hex digits in the query; write %25".into());
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = bytes.next().and_then(hex).ok_or_else(bad)?;
                let low = bytes.next().and_then(hex).ok_or_else(bad)?;
                high << 4 | low
            }
            other => other,
        });
    }
    Ok(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(query: &str) -> Result<Query, Error> {
        let uri: Uri = format!("/kv?{query}").parse().expect("a URI");
        Query::parse(&uri, &[KEY, TIMEOUT, CONSISTENCY, RAW])
    }

    fn key(query: &str) -> Result<String, Error> {
        parse(query)?.key().map(|key| key.to_string())
    }

    #[test]
    fn a_key_is_decoded_as_in_a_form() {
        assert_eq!(key("key=a%2Fb+c%C3%A9%26=").as_deref(), Ok("a/b c\u{e9}&="));
        assert_eq!(key("&&key=%7bu%7D:x&").as_deref(), Ok("{u}:x"));
        assert_eq!(key("key=100%").map_err(|error| error.code()), Err("bad_request"));
        assert_eq!(key("key=%+1").map_err(|error| error.code()), Err("bad_request"));
        assert_eq!(key("key=%ff"), Err(Error::InvalidUtf8("key".into())));
        assert_eq!(key("key=%ED%A0%80"), Err(Error::InvalidUtf8("key".into())), "a surrogate");
        for missing in ["", "key", "key=", "raw=true"] {
            assert_eq!(key(missing), Err(Error::MissingKey), "{missing}");
        }
        let long = format!("key={}", "a".repeat(4097));
        assert_eq!(key(&long), Err(Error::KeyTooLarge { bytes: 4097 }));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let name = |query: &str| match parse(query).expect_err(query) {
            Error::InvalidParameter { name, .. } => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(name("key=a&Key=b"), "Key");
        assert_eq!(name("key=a&key=a"), "key");
        assert_eq!(name("key=a&k%65y=b"), "key");
        assert_eq!(name("key=a&ttl=3s"), "ttl");
        assert_eq!(name("=a"), "");
        assert_eq!(name(&"x".repeat(1000)).len(), NAME_CHARS_SHOWN);
    }

    #[test]
    fn the_deadline_is_bounded() {
        let left = |query: &str| Ok::<_, Error>(parse(query)?.deadline()?.left());
        let default = left("").expect("default");
        assert!(default <= REQUEST_TIMEOUT_DEFAULT && default > REQUEST_TIMEOUT_DEFAULT / 2);
        assert!(left("timeout=500ms").expect("valid") <= Duration::from_millis(500));
        assert!(left("timeout=60s").is_ok());
        for bad in ["0s", "61s", "5", "", "-1s", "%ff", "1e3s"] {
            assert!(left(&format!("timeout={bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_store_gets_a_little_less_than_the_client_was_promised() {
        let deadline = Deadline::after(Duration::from_secs(60));
        let margin = Duration::from_secs(2);
        let given = with_margin(deadline, margin);
        let short = deadline.instant() - given.instant();
        assert!(short >= Duration::from_millis(1900) && short <= margin, "{short:?}");
        let tight = Deadline::after(Duration::from_millis(100));
        assert!(with_margin(tight, margin).left() > Duration::from_millis(50));
    }

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

    proptest! {
        #[test]
        fn every_key_survives_full_escaping(text in "\\PC{1,50}") {
            let escaped: Vec<_> = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(key(&format!("key={}", escaped.concat())), Ok(text));
        }

        #[test]
        fn no_query_panics(query in "[ -~]{0,60}") {
            if let Ok(uri) = format!("/kv?{}", query.replace([' ', '#'], "")).parse() {
                let parsed = Query::parse(&uri, &[KEY, TIMEOUT, CONSISTENCY, RAW]);
                if let Ok(query) = parsed {
                    let all = (query.key(), query.deadline(), query.consistency(), query.raw());
                    prop_assert!(all.1.is_ok() || all.1.is_err());
                }
            }
        }
    }
}
