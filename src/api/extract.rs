//! The query of a request, strictly read.
//!
//! A parameter that is not known, comes twice or has a value that is not known is refused by
//! name: a misspelt `consistency` that was ignored would be a lie. Percent escapes must be whole
//! and their bytes UTF-8; `+` is a space, as in forms. Does no I/O.

use std::borrow::Cow;

use axum::http::Uri;

use crate::api::accepted::{BY, CONSISTENCY, CURSOR, KEY, LIMIT, RAW, SINCE, TIMEOUT, TTL};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::key::Key;
use crate::types::kv::Consistency;
use crate::types::limits::{
    KEY_BYTES_MAX, REQUEST_TIMEOUT_DEFAULT, REQUEST_TIMEOUT_MAX, SCAN_LIMIT_DEFAULT,
    SCAN_LIMIT_MAX, TTL_MAX,
};
use crate::types::scan::Cursor;
use crate::types::units::parse_duration;

/// The most characters of a parameter's name that an error repeats.
const NAME_CHARS_SHOWN: usize = 64;

/// The parameters of one request: each known to its path, each at most once.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(&'static str, Cow<'a, [u8]>)>);

impl<'a> Query<'a> {
    /// Reads the query of `uri`, which may have the parameters `accepted`.
    pub(super) fn parse(uri: &'a Uri, accepted: &[&'static str]) -> Result<Self, Error> {
        Self::of(uri.query().unwrap_or_default(), accepted)
    }

    fn of(query: &'a str, accepted: &[&'static str]) -> Result<Self, Error> {
        let mut pairs: Vec<(&str, Cow<'_, [u8]>)> = Vec::with_capacity(accepted.len());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            let Some(&name) = accepted.iter().find(|known| known.as_bytes() == &name[..]) else {
                return Err(unknown(&name, accepted));
            };
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(invalid(name, "given more than once"));
            }
            pairs.push((name, decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// The key, which must be there.
    pub(super) fn key(&self) -> Result<Key, Error> {
        let bytes = self.bytes(KEY).ok_or(Error::MissingKey)?;
        Ok(Key::new(bytes)?)
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

    /// How long the value lasts, in milliseconds, if that is said.
    pub(super) fn ttl_ms(&self) -> Result<Option<u64>, Error> {
        let Some(text) = self.text(TTL)? else { return Ok(None) };
        let ttl = parse_duration(text).map_err(|error| invalid(TTL, error.to_string()))?;
        if ttl.is_zero() || ttl > TTL_MAX {
            let days = TTL_MAX.as_secs() / (24 * 60 * 60);
            return Err(invalid(TTL, format!("out of range; more than 0, at most {days}d")));
        }
        Ok(Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long a value that is there lasts from now on: [`Query::ttl_ms`], which must be there, or `none`
    /// for ever.
    pub(super) fn new_ttl_ms(&self) -> Result<Option<u64>, Error> {
        match self.text(TTL)? {
            None => Err(invalid(TTL, "required; a duration, or none for ever")),
            Some("none") => Ok(None),
            Some(_) => self.ttl_ms(),
        }
    }

    /// How much is added to a counter.
    pub(super) fn by(&self) -> Result<i64, Error> {
        let Some(text) = self.text(BY)? else { return Ok(1) };
        // Not `+1`, where the plus may have been a space.
        let digits =
            text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
        let by = text.parse().ok().filter(|_| digits);
        by.ok_or_else(|| invalid(BY, "not an integer of 64 bits"))
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
        self.flag(RAW)
    }

    /// Whether a flag is set.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.text(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(name, "unknown; true or false")),
        }
    }

    /// A key, or a part of one, that bounds a scan; one that is empty bounds nothing.
    pub(super) fn bound(&self, name: &str) -> Result<&str, Error> {
        let text = self.text(name)?.unwrap_or_default();
        if text.len() > KEY_BYTES_MAX {
            return Err(Error::KeyTooLarge { bytes: text.len() as u64 });
        }
        Ok(text)
    }

    /// A parameter as [`Query::bound`] takes it, which must be there.
    pub(super) fn given(&self, name: &str, reason: &'static str) -> Result<&str, Error> {
        self.text(name)?.ok_or_else(|| invalid(name, reason))?;
        self.bound(name)
    }

    /// Whether a parameter is there, and be it empty.
    pub(super) fn has(&self, name: &str) -> bool {
        self.bytes(name).is_some()
    }

    /// From where on a watch tells, if that is said.
    pub(super) fn since(&self) -> Result<Option<&str>, Error> {
        self.text(SINCE)
    }

    /// How many keys a page may have.
    pub(super) fn limit(&self) -> Result<u32, Error> {
        let Some(text) = self.text(LIMIT)? else { return Ok(SCAN_LIMIT_DEFAULT) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let limit = if digits { text.parse().ok() } else { None };
        let limit = limit.filter(|limit| (1..=SCAN_LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| {
            invalid(LIMIT, format!("a number from 1 to {SCAN_LIMIT_MAX} is accepted"))
        })
    }

    /// The last key of the page before, if there was one: this must be the cursor that came with it.
    pub(super) fn cursor(&self, query: u64) -> Result<Option<Key>, Error> {
        match self.bytes(CURSOR) {
            None | Some([]) => Ok(None),
            Some(text) => match Cursor::parse(text, query) {
                Some(last) => Ok(Some(last)),
                None => Err(invalid(CURSOR, "not one that this query was answered with")),
            },
        }
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| &value[..])
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        let text = self.bytes(name).map(std::str::from_utf8).transpose();
        text.map_err(|_| Error::InvalidUtf8(format!("parameter {name}")))
    }
}

fn unknown(name: &[u8], accepted: &[&str]) -> Error {
    match std::str::from_utf8(name) {
        Ok(name) => invalid(name, format!("unknown; accepted here: {}", accepted.join(", "))),
        Err(_) => Error::InvalidUtf8("the name of a parameter".into()),
    }
}

pub(super) fn invalid(name: &str, reason: impl Into<String>) -> Error {
    let name = name.chars().take(NAME_CHARS_SHOWN).collect();
    Error::InvalidParameter { name, reason: reason.into() }
}

/// Undoes form encoding: `%41` is `A`, `+` is a space.
fn decode(text: &str) -> Result<Cow<'_, [u8]>, Error> {
    if !text.contains(['+', '%']) {
        return Ok(text.as_bytes().into());
    }
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
    Ok(decoded.into())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn parse(query: &str) -> Result<Query<'_>, Error> {
        Query::of(query, &[KEY, TIMEOUT, CONSISTENCY, RAW])
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
    fn what_is_added_is_an_integer() {
        let by = |query: &str| Query::of(query, &[BY]).expect("known").by();
        for (text, number) in
            [("", 1), ("by=0", 0), ("by=-3", -3), ("by=9223372036854775807", i64::MAX)]
        {
            assert_eq!(by(text), Ok(number));
        }
        for bad in
            ["by=", "by=+1", "by=%2b1", "by=1.5", "by=1e3", "by=--1", "by=9223372036854775808"]
        {
            assert!(by(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_to_live_is_bounded() {
        fn query(query: &str) -> Query<'_> {
            Query::of(query, &[TTL]).expect("known")
        }
        for (text, ttl_ms) in [("1ms", 1), ("30s", 30_000), ("365d", 31_536_000_000)] {
            let given = format!("ttl={text}");
            let given = query(&given);
            assert_eq!((given.ttl_ms(), given.new_ttl_ms()), (Ok(Some(ttl_ms)), Ok(Some(ttl_ms))));
        }
        for bad in ["0s", "366d", "8761h", "30", "", "-1s", "1w", "99999999999999999999d"] {
            let given = format!("ttl={bad}");
            let given = query(&given);
            assert!(given.ttl_ms().is_err() && given.new_ttl_ms().is_err(), "{bad}");
        }
        assert_eq!(query("").ttl_ms(), Ok(None));
        assert!(query("").new_ttl_ms().is_err(), "it must be said");
        assert!(query("ttl=none").ttl_ms().is_err());
        assert_eq!(query("ttl=none").new_ttl_ms(), Ok(None));
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
