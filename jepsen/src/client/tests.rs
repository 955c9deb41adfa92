//! What answers mean, and which no server may give.

use reqwest::header::HeaderValue;

use super::*;

const ACKNOWLEDGED: &str = r#"{"ok":true,"acks":3,"quorum":2,"ts":1,"version":7}"#;
const DELETED: &str = r#"{"ok":true,"acks":3,"quorum":2,"ts":1,"version":7,"existed":false}"#;
const NOT_APPLIED: &str = r#"{"error":"no","code":"no","outcome":"not_applied"}"#;
const UNKNOWN: &str = r#"{"error":"no","code":"no","outcome":"unknown"}"#;
const REFUSED: &str = r#"{"error":"no","code":"no"}"#;
const FOUND: &str = r#"{"found":true,"value":"x","version":7}"#;

fn headers() -> HeaderMap {
    let index = HeaderValue::from_static("g1:17");
    HeaderMap::from_iter([(HEADER_INDEX.parse().expect("a name"), index)])
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("a status")
}

/// The first letter of what became of a write.
fn write(status: u16, body: &str, deletes: bool) -> char {
    match answered((code(status), &headers()), body.as_bytes(), deletes) {
        Written::Ok(_) => 'o',
        Written::Failed(_) => 'f',
        Written::Unknown(_) => 'u',
        Written::Bad(_) => 'b',
    }
}

fn read(status: u16, body: &str) -> char {
    match found(code(status), &headers(), body.as_bytes()) {
        Ok(_) => 'o',
        Err(Unread::Refused(_)) => 'f',
        Err(Unread::Bad(_)) => 'b',
    }
}

#[test]
fn only_504_leaves_the_fate_of_a_write_open() {
    assert_eq!((write(200, ACKNOWLEDGED, false), write(200, DELETED, true)), ('o', 'o'));
    for status in [412, 421, 429, 503, 507] {
        assert_eq!(write(status, NOT_APPLIED, false), 'f', "{status}");
        assert_eq!(write(status, UNKNOWN, false), 'b', "{status}");
    }
    assert_eq!((write(504, UNKNOWN, true), write(504, NOT_APPLIED, true)), ('u', 'b'));
}

#[test]
fn what_the_api_does_not_allow_is_bad() {
    for status in [201, 302, 400, 404, 405, 413, 500, 502] {
        for body in [ACKNOWLEDGED, NOT_APPLIED, UNKNOWN, "", "<html>"] {
            assert_eq!(write(status, body, false), 'b', "{status} {body}");
        }
    }
    let too_few = ACKNOWLEDGED.replace("acks\":3", "acks\":1");
    for body in ["", "{}", DELETED, NOT_APPLIED, &too_few, &ACKNOWLEDGED.replace("true", "false")] {
        assert_eq!(write(200, body, false), 'b', "{body}");
    }
    assert_eq!((write(200, ACKNOWLEDGED, true), write(503, REFUSED, false)), ('b', 'b'));
    let nowhere = answered((StatusCode::OK, &HeaderMap::new()), ACKNOWLEDGED.as_bytes(), false);
    assert!(matches!(nowhere, Written::Bad(_)), "{nowhere:?}");
}

#[test]
fn a_read_finds_what_its_status_says() {
    let nothing = GetBody::NOT_FOUND;
    assert_eq!((read(200, FOUND), read(404, nothing), read(503, REFUSED)), ('o', 'o', 'f'));
    let bad = [(404, FOUND), (200, nothing), (200, r#"{"found":true,"version":7}"#), (200, "")];
    for (status, body) in bad {
        assert_eq!(read(status, body), 'b', "{status} {body}");
    }
    for (status, body) in [(500, REFUSED), (404, REFUSED), (503, NOT_APPLIED), (504, REFUSED)] {
        assert_eq!(read(status, body), 'b', "{status} {body}");
    }
    assert_eq!(group(&headers()).as_deref(), Some("g1"));
}
