//! Requests from a document: most of them right, many at a bound, some wrong.
//!
//! What is right is taken from the schemas. Where these can't say it all (the fields of an operation that
//! belong together, versions that a key really has), a few words help, so that much of it succeeds.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use serde_json::{Value as Json, json};

use super::schema::Schemas;
use super::{Operation, operations};

/// A request that is to be sent.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// What it is counted as.
    pub(crate) operation: String,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Bytes)>,
    pub(crate) body: Option<Bytes>,
    /// The id of the operation, unless the document has none such.
    pub(crate) id: Option<String>,
    /// Its deadline, if it says one that counts.
    pub(crate) timeout: Option<Duration>,
    /// Whether anything but `400` would be wrong.
    pub(crate) wrong: bool,
}

/// Makes requests.
pub(crate) struct Generator<'a> {
    document: &'a Json,
    rng: StdRng,
}

/// Text that is likely to be in somebody's way.
const ODD: &[&str] = &[
    "",
    "0",
    "-1",
    "+1",
    "1e3",
    "null",
    "true",
    "none",
    "*",
    "\"17\"",
    "1s",
    "18446744073709551616",
    "99999999999999999999999s",
    "NaN",
    "a\0b",
    "ключ",
    "{x}y",
    "{}",
    "../../etc",
    "%",
    "\u{202e}",
    "' OR 1=1",
];
/// Pieces of a query that can't be read.
const BROKEN: &[&str] = &["%ff", "%", "%zz", "%ED%A0%80", "%C3", "%0"];

impl<'a> Generator<'a> {
    pub(crate) fn new(document: &'a Json, rng: StdRng) -> Self {
        Self { document, rng }
    }

    /// The next one.
    pub(crate) fn request(&mut self) -> Wanted {
        if self.chance(5) {
            return self.undescribed();
        }
        let document = self.document;
        let all = operations(document);
        // Those that change something three times as often as those that only look at the process.
        let mut at = self.below(all.len());
        while all[at].described["tags"][0] == "the process" && self.chance(66) {
            at = self.below(all.len());
        }
        let Operation { path, method, described } = &all[at];
        let id = described["operationId"].as_str().expect("an id").to_owned();
        let mut wanted = Wanted {
            method: method.to_uppercase(),
            target: String::new(),
            headers: Vec::new(),
            body: None,
            id: Some(id.clone()),
            operation: id,
            timeout: None,
            wrong: false,
        };
        if *method == "get" && self.chance(5) {
            wanted.method = "HEAD".into();
            wanted.operation += " (HEAD)";
        }
        let query = self.parameters(described, &mut wanted);
        let sign = if query.is_empty() { "" } else { "?" };
        wanted.target = format!("{path}{sign}{}", query.join("&"));
        if let Some(body) = described.get("requestBody") {
            self.body(body, &mut wanted);
        } else if *method != "get" && self.chance(5) {
            wanted.body = Some("nobody asked for this".into());
        }
        wanted
    }

    /// A path or a method that there is not.
    fn undescribed(&mut self) -> Wanted {
        let (method, target) = if self.chance(50) {
            (
                self.pick(&["GET", "PUT", "POST", "DELETE"]),
                self.pick(&["/", "/kv/", "/nowhere?key=a", "/KV", "/kv/x"]),
            )
        } else {
            (
                self.pick(&["PATCH", "OPTIONS", "TRACE", "PROPFIND"]),
                self.pick(&["/kv?key=a", "/txn", "/keys", "/health"]),
            )
        };
        Wanted {
            operation: "undescribed".into(),
            method: method.into(),
            target: target.into(),
            headers: Vec::new(),
            body: None,
            id: None,
            timeout: None,
            wrong: false,
        }
    }

    fn parameters(&mut self, described: &Json, wanted: &mut Wanted) -> Vec<String> {
        let mut query = Vec::new();
        for parameter in described["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().expect("a name");
            let required = parameter["required"] == true;
            if !self.chance(if required { 96 } else { 25 }) {
                continue;
            }
            if parameter["in"] == "header" {
                let value = self.header(name);
                wanted.headers.push((name.into(), value.into()));
                continue;
            }
            let value = self.value(name, &parameter["schema"], wanted.method == "DELETE");
            if name == "timeout" {
                wanted.timeout = deadline(&value);
            }
            query.push(format!("{}={}", name, encoded(&value)));
            if self.chance(2) {
                query.push(format!("{}={}", name, encoded(&value)));
                wanted.wrong = true;
            }
        }
        if self.chance(3) {
            query.push(format!("{}=1", self.pick(&["Key", "verbose", "key%20", "constistency"])));
            wanted.wrong = true;
        }
        if self.chance(3) {
            query.push(format!("key={}", self.pick(BROKEN)));
            wanted.wrong = true;
        }
        // `/rpc` does not look at its query: it is not for clients.
        wanted.wrong &= !wanted.operation.starts_with("rpc");
        query
    }

    /// What a parameter is given.
    fn value(&mut self, name: &str, schema: &Json, deletes: bool) -> String {
        if self.chance(6) {
            return self.pick(ODD).into();
        }
        if let Some(values) = schema["enum"].as_array() {
            return values[self.below(values.len())].as_str().expect("text").into();
        }
        match (name, schema["type"].as_str()) {
            ("key", _) => self.key(),
            // Or there would hardly ever be a value.
            ("prefix", _) if deletes && self.chance(90) => "nobody has this".into(),
            ("prefix", _) => self.pick(&["", "a", "k", "{t}", "nobody has this"]).into(),
            ("start" | "end", _) => {
                if self.chance(50) {
                    String::new()
                } else {
                    self.key()
                }
            }
            ("timeout", _) => self
                .pick(&["1ms", "20ms", "500ms", "1s", "2s", "5s", "60s", "61s", "0s", "1d"])
                .into(),
            ("ttl", _) => {
                self.pick(&["1ms", "30s", "365d", "1h", "60m", "5s", "366d", "0ms", "none"]).into()
            }
            ("since", _) => self
                .pick(&[
                    "",
                    "AQEA",
                    "red:1",
                    "red:1,green:1",
                    "green:0, red:9",
                    "red",
                    "red:1,red:2",
                ])
                .into(),
            ("cursor", _) => self.pick(&["", "AQ-_", "AAAA", "!"]).into(),
            (_, Some("boolean")) => self.pick(&["true", "false", "1", "TRUE"]).into(),
            (_, Some("integer")) => self.integer(schema).to_string(),
            (name, kind) => panic!("no idea what {name}, a {kind:?}, may be"),
        }
    }

    /// At or near a bound, or anywhere.
    fn integer(&mut self, schema: &Json) -> i128 {
        let bound = |name: &str, default: i64| i128::from(schema[name].as_i64().unwrap_or(default));
        let (least, most) = (bound("minimum", i64::MIN), bound("maximum", i64::MAX));
        match self.below(8) {
            0 => least,
            1 => most,
            2 => least - 1,
            3 => most + 1,
            _ => 1 + i128::from(self.rng.next_u32() % 20),
        }
    }

    /// One of few, so that requests meet; now and then a long or an odd one.
    fn key(&mut self) -> String {
        match self.below(40) {
            0 => "k".repeat(4096),
            1 => "k".repeat(4097),
            2 => "é".repeat(2049),
            3 => self.pick(ODD).into(),
            4..12 => format!("{{t}}{}", self.below(4)),
            12..18 => format!("counter{}", self.below(3)),
            _ => format!("a{}", self.below(12)),
        }
    }

    fn header(&mut self, name: &str) -> Vec<u8> {
        let position = format!("red:{}", self.below(200));
        let choices: &[&[u8]] = match name {
            "last-event-id" => &[b"AQEA", b"", b"red:1", b"?", b"\xff"],
            "If-Match" => &[b"*", b"\"1\"", b"\"1\", \"2\",\"3\"", b"W/\"1\"", b"1", b"", b"\xff"],
            "If-None-Match" => {
                &[b"*", b"*", b"*", b"\"1\", \"2\", \"3\", \"4\"", b"\"1\"", b"\"x\"", b"\xc3\x28"]
            }
            "Idempotency-Key" => {
                &[b"one", b"two", b"three", b"four", b"", b"two words", &[b'x'; 64], &[b'x'; 65]]
            }
            "X-Sage-Min-Index" => &[
                b"red:0",
                position.as_bytes(),
                b"red:99999999999",
                b"blue:7",
                b"red:1,red:2",
                b":",
                b"\x80",
            ],
            other => panic!("no idea what {other} may be"),
        };
        choices[self.below(choices.len())].to_vec()
    }

    fn body(&mut self, described: &Json, wanted: &mut Wanted) {
        let contents = described["content"].as_object().expect("contents");
        let kinds: Vec<&String> = contents.keys().collect();
        let kind = kinds[self.below(kinds.len())].as_str();
        let schema = &contents[kind]["schema"];
        let kind = if kind == "*/*" {
            self.pick(&["text/plain", "", "a/b; c=d", "text/plain; charset=utf-16"])
        } else {
            kind
        };
        if self.chance(95) {
            wanted.headers.push(("Content-Type".into(), kind.to_owned().into()));
        }
        let several = schema.get("$ref").is_some();
        let bytes = match self.below(10) {
            0 => self.broken_json(),
            1 if !several => self.odd_value(),
            _ if several => self.json(schema, 0).to_string().into_bytes(),
            _ if kind == "application/json" => self.any_json(0).to_string().into_bytes(),
            _ => format!("text {}", self.below(100)).into_bytes(),
        };
        wanted.body = Some(bytes.into());
    }

    fn odd_value(&mut self) -> Vec<u8> {
        match self.below(6) {
            0 => Vec::new(),
            1 => vec![b'7'; 2000],
            2 => vec![b'7'; 2001],
            3 => b"\xff\xfe\x00".to_vec(),
            4 => format!("\"{}\"", "x".repeat(1999)).into_bytes(),
            _ => b"123456789012345678901234567890e-400".to_vec(),
        }
    }

    fn broken_json(&mut self) -> Vec<u8> {
        let texts: &[&str] = &[
            "",
            "{",
            "[]",
            "null",
            "{\"ops\":[]}",
            "{\"ops\":{}}",
            "{\"ops\":[[\"get\",\"a\"]]}",
            "{\"then\":null}",
            "{\"ops\":[{\"op\":\"get\",\"key\":\"a\",\"key\":\"b\"}]}",
            "{\"then\":[{\"op\":\"incr\",\"key\":\"a\",\"by\":1e99}]}",
            "{\"then\":[{\"op\":\"put\",\"key\":\"a\"}]}",
            "{\"if\":[{\"key\":\"a\",\"version\":-1}]}",
            "{}x",
            "{\"ops\":[{\"op\":\"put\",\"key\":\"a\",\"value\":\"\\ud800\"}]}",
            "\u{feff}{}",
        ];
        match self.below(6) {
            0 => "[".repeat(100_000).into_bytes(),
            1 => format!("{{\"ops\":{}", "[{\"a\":".repeat(20_000)).into_bytes(),
            2 => {
                format!("{{\"ops\":[{}]}}", vec!["{\"op\":\"get\",\"key\":\"a\"}"; 1001].join(","))
                    .into_bytes()
            }
            3 => b"{\"ops\":[{\"op\":\"get\",\"key\":\"\xff\"}]}".to_vec(),
            _ => self.pick(texts).as_bytes().to_vec(),
        }
    }

    /// JSON of a schema; with small odds something else somewhere inside.
    fn json(&mut self, schema: &Json, depth: usize) -> Json {
        let document = self.document;
        if schema["$ref"].as_str().is_some_and(|target| target.ends_with("/OpBody"))
            && self.chance(85)
        {
            return self.op();
        }
        if schema["$ref"].as_str().is_some_and(|target| target.ends_with("/CompareBody"))
            && self.chance(85)
        {
            return self.compare();
        }
        let schema = Schemas::of(document).resolve(schema);
        if self.chance(1) {
            return self.any_json(depth);
        }
        if let Some(parts) = schema["oneOf"].as_array() {
            let part = &parts[self.below(parts.len())];
            return self.json(part, depth + 1);
        }
        if let Some(values) = schema["enum"].as_array() {
            return values[self.below(values.len())].clone();
        }
        let kind = match &schema["type"] {
            Json::Array(kinds) => kinds[self.below(kinds.len())].clone(),
            kind => kind.clone(),
        };
        match kind.as_str() {
            Some("object") => {
                let required = schema["required"].as_array().cloned().unwrap_or_default();
                let mut object = serde_json::Map::new();
                for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                    let needed = required.iter().any(|required| required == name);
                    if self.chance(if needed { 98 } else { 40 }) {
                        object.insert(name.clone(), self.json(field, depth + 1));
                    }
                }
                if self.chance(1) {
                    object.insert("surplus".into(), Json::Null);
                }
                object.into()
            }
            Some("array") => {
                let items = (0..self.below(5)).map(|_| self.json(&schema["items"], depth + 1));
                items.collect::<Vec<_>>().into()
            }
            Some("string") => self.key().into(),
            Some("integer") => {
                serde_json::from_str(&self.integer(schema).to_string()).expect("a number")
            }
            Some("boolean") => self.chance(50).into(),
            Some("null") => Json::Null,
            _ => self.any_json(depth),
        }
    }

    /// An operation as it should be.
    fn op(&mut self) -> Json {
        // Of one group mostly, and mostly countable ones to count.
        let key = if self.chance(80) { format!("{{t}}{}", self.below(4)) } else { self.key() };
        match self.below(7) {
            0 => json!({"op": "delete", "key": key}),
            1 => json!({"op": "incr", "key": key, "by": self.below(9)}),
            2 => json!({"op": "touch", "key": key, "ttl": self.pick(&["1h", "none", "0s"])}),
            3 => json!({"op": "put", "key": key, "value": "AAEC", "type": "bytes"}),
            4 => json!({"op": "put", "key": key, "value": self.below(9), "ttl": "1h"}),
            _ => json!({"op": "get", "key": key}),
        }
    }

    fn compare(&mut self) -> Json {
        let key = format!("{{t}}{}", self.below(4));
        match self.below(3) {
            0 => json!({"key": key, "version": self.below(5)}),
            1 => json!({"key": key, "exists": self.chance(50)}),
            _ => json!({"key": key, "value": self.below(9)}),
        }
    }

    fn any_json(&mut self, depth: usize) -> Json {
        match self.below(if depth > 3 { 6 } else { 9 }) {
            0 => Json::Null,
            1 => self.chance(50).into(),
            2 => self.below(100).into(),
            3 => json!(-1.5e300),
            4 => u64::MAX.into(),
            5 => self.pick(ODD).into(),
            6 => json!([self.any_json(depth + 1), self.any_json(depth + 1)]),
            7 => json!({"a": self.any_json(depth + 1)}),
            _ => (0..60).fold(Json::Null, |inner, _| json!([inner])),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.next_u32() % 100 < percent
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.random_range(0..bound)
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len())]
    }
}

/// Every byte that could mean something, escaped.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a String takes all");
        }
    }
    encoded
}

/// The deadline that a `timeout` asks for, if it is in range.
fn deadline(text: &str) -> Option<Duration> {
    let timeout = sagedb::types::units::parse_duration(text).ok()?;
    (timeout <= Duration::from_secs(60)).then_some(timeout)
}
