//! The one form of URL by which processes reach each other: `http://host:port`.
//!
//! Nothing may follow the port but one slash, which is dropped; user names, paths and `https` are
//! refused with the reason. The result is in lower case, so that equal text means equal place.

use std::net::Ipv6Addr;

/// Why a text is no base URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Empty, as from a comma too many.
    #[error("an empty URL; check for a comma too many")]
    Empty,
    /// TLS is not spoken.
    #[error(
        "{0} asks for https, which SageDB does not speak; use http:// or put a proxy before it"
    )]
    Https(String),
    /// Another scheme or none.
    #[error("{0} is not an http URL; write http://host:port")]
    Scheme(String),
    /// A user name, path, query or fragment.
    #[error("{0} has something after the port; write http://host:port and nothing more")]
    Trailing(String),
    /// No port, or one outside 1 to 65535.
    #[error("{0} has no port from 1 to 65535; write http://host:port")]
    Port(String),
    /// No host, or one with characters that no host has.
    #[error("{0} has no valid host; write http://host:port")]
    Host(String),
}

/// Checks `text` and gives it in its one form, `http://host:port`.
pub fn base_url(text: &str) -> Result<String, UrlError> {
    let text = text.trim();
    let shown = || text.chars().take(200).collect::<String>();
    if text.is_empty() {
        return Err(UrlError::Empty);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(UrlError::Scheme(shown()));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" => (),
        "https" => return Err(UrlError::Https(shown())),
        _ => return Err(UrlError::Scheme(shown())),
    }
    let place = rest.strip_suffix('/').unwrap_or(rest);
    if place.contains(['/', '?', '#']) {
        return Err(UrlError::Trailing(shown()));
    }
    let Some((host, port)) = place.rsplit_once(':') else {
        return Err(UrlError::Port(shown()));
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|&port| digits && port > 0);
    let port = port.ok_or_else(|| UrlError::Port(shown()))?;
    if !is_host(host) {
        return Err(UrlError::Host(shown()));
    }
    Ok(format!("http://{}:{port}", host.to_ascii_lowercase()))
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !host.is_empty() && host.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_has_one_form() {
        for text in
            ["http://Node-1.local:4101", "HTTP://node-1.local:4101/", " http://node-1.local:4101 "]
        {
            assert_eq!(base_url(text).expect("valid"), "http://node-1.local:4101");
        }
        assert_eq!(base_url("http://[::1]:80/").expect("valid"), "http://[::1]:80");
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        let reason = |text: &str| base_url(text).expect_err(text);
        assert_eq!(reason(""), UrlError::Empty);
        assert!(matches!(reason("https://a:1"), UrlError::Https(_)));
        for text in ["a:1", "localhost", "ftp://a:1", "http:/a:1"] {
            assert!(matches!(reason(text), UrlError::Scheme(_)), "{text}");
        }
        for text in ["http://a:1/x", "http://a:1?x", "http://a:1//", "http://a:1#x"] {
            assert!(matches!(reason(text), UrlError::Trailing(_)), "{text}");
        }
        for text in ["http://a", "http://a:", "http://a:0", "http://a:65536", "http://a:+1"] {
            assert!(matches!(reason(text), UrlError::Port(_)), "{text}");
        }
        for text in ["http://:1", "http://u@h:1", "http://a b:1", "http://::1:80", "http://[x]:1"] {
            assert!(matches!(reason(text), UrlError::Host(_)), "{text}");
        }
    }
}
