//! Values that follow from their keys: random text that nothing packs, or records like those of a user table.
//!
//! A value follows from its key alone, so that a key that is written again gets the same value, and the bytes of all keys
//! and values stay the same however often they are.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Serialize;

/// What values look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Values {
    /// Random printable text of so many bytes, without quotes and backslashes.
    Text(usize),
    /// A JSON object of a user: some fields always, others not for all.
    Json,
}

impl Values {
    /// The value of a key.
    pub(super) fn of(self, key: &str) -> Bytes {
        let mut dice = Dice::new(key);
        match self {
            Self::Text(size) => (0..size).map(|_| dice.letter()).collect(),
            Self::Json => user(&mut dice).into(),
        }
    }
}

/// Random numbers that follow from a key.
struct Dice(u64);

impl Dice {
    /// FNV-1a of the key.
    fn new(key: &str) -> Self {
        let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(key.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    /// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, some: u64) -> bool {
        self.below(some) == 0
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let at = self.below(u64::try_from(words.len()).unwrap_or(u64::MAX));
        words[usize::try_from(at).unwrap_or_default()]
    }

    fn letter(&mut self) -> u8 {
        loop {
            let letter = b' ' + u8::try_from(self.below(95)).unwrap_or_default();
            if !b"\"\\".contains(&letter) {
                return letter;
            }
        }
    }

    fn date(&mut self, first_year: u64, years: u64) -> String {
        let (year, month) = (first_year + self.below(years), 1 + self.below(12));
        let (day, hour) = (1 + self.below(28), self.below(24));
        let (minute, second) = (self.below(60), self.below(60));
        format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

const FIRST_NAMES: [&str; 32] = [
    "Ada", "Amir", "Anna", "Astrid", "Bao", "Carlos", "Chen", "Daria", "David", "Elena", "Emeka",
    "Fatima", "Felix", "Grace", "Hana", "Ivan", "Jana", "José", "Kaito", "Lena", "Liam", "Mara",
    "Mohammed", "Nadia", "Noah", "Olga", "Priya", "Rosa", "Sven", "Tomás", "Yara", "Zoe",
];
const LAST_NAMES: [&str; 32] = [
    "Adeyemi",
    "Andersson",
    "Bauer",
    "Brown",
    "Chen",
    "Costa",
    "Dubois",
    "Fischer",
    "Garcia",
    "Haddad",
    "Hansen",
    "Ito",
    "Ivanova",
    "Jensen",
    "Kim",
    "Kowalski",
    "Kumar",
    "Lopez",
    "Meyer",
    "Moreau",
    "Nguyen",
    "Novak",
    "Okafor",
    "Papadopoulos",
    "Rossi",
    "Sato",
    "Schmidt",
    "Silva",
    "Singh",
    "Smith",
    "Weber",
    "Yilmaz",
];
const CITIES: [(&str, &str); 16] = [
    ("Berlin", "DE"),
    ("Lagos", "NG"),
    ("Lisbon", "PT"),
    ("Lyon", "FR"),
    ("Madrid", "ES"),
    ("Milan", "IT"),
    ("Mumbai", "IN"),
    ("Nairobi", "KE"),
    ("Osaka", "JP"),
    ("Oslo", "NO"),
    ("Porto Alegre", "BR"),
    ("Prague", "CZ"),
    ("Seoul", "KR"),
    ("Toronto", "CA"),
    ("Warsaw", "PL"),
    ("Wellington", "NZ"),
];
const STREETS: [&str; 12] = [
    "Mill Road",
    "High Street",
    "Park Avenue",
    "Station Road",
    "Church Lane",
    "Main Street",
    "Elm Street",
    "Harbour View",
    "King Street",
    "Garden Row",
    "Bridge Street",
    "Market Square",
];
const DOMAINS: [&str; 6] = [
    "example.com",
    "example.org",
    "mail.example.net",
    "post.example.com",
    "example.edu",
    "inbox.example.org",
];
const TAGS: [&str; 10] = [
    "beta",
    "newsletter",
    "trial",
    "vip",
    "partner",
    "support",
    "staff",
    "mobile",
    "early-access",
    "invoiced",
];
const WORDS: [&str; 40] = [
    "account", "again", "about", "asked", "billing", "called", "change", "contract", "customer",
    "delivery", "email", "export", "failed", "for", "invoice", "is", "later", "login", "moved",
    "new", "not", "on", "order", "paid", "password", "phone", "plan", "prefers", "refund",
    "renewal", "reset", "sent", "shipping", "since", "the", "to", "upgrade", "wants", "waiting",
    "with",
];

/// One user.
fn user(dice: &mut Dice) -> String {
    let (first, last) = (dice.pick(&FIRST_NAMES), dice.pick(&LAST_NAMES));
    let (city, country) = CITIES[usize::try_from(dice.below(16)).unwrap_or_default()];
    let mut json = format!(
        "{{\"id\":{},\"name\":\"{first} {last}\",\"email\":\"{}.{}{}@{}\",\"active\":{},\"created\":\"{}\"",
        10_000_000 + dice.below(90_000_000),
        first.to_lowercase(),
        last.to_lowercase(),
        dice.below(1000),
        dice.pick(&DOMAINS),
        !dice.one_in(8),
        dice.date(2015, 11)
    );
    if !dice.one_in(4) {
        add(&mut json, format_args!(",\"last_login\":\"{}\"", dice.date(2025, 2)));
    }
    add(
        &mut json,
        format_args!(
            ",\"address\":{{\"street\":\"{} {}\",\"zip\":\"{:05}\",\"city\":\"{city}\",\"country\":\"{country}\"}}",
            1 + dice.below(250),
            dice.pick(&STREETS),
            dice.below(100_000)
        ),
    );
    if dice.one_in(2) {
        add(
            &mut json,
            format_args!(",\"phone\":\"+{}\"", 10_000_000_000 + dice.below(89_999_999_999)),
        );
    }
    let tags: Vec<String> =
        (0..dice.below(4)).map(|_| format!("\"{}\"", dice.pick(&TAGS))).collect();
    add(&mut json, format_args!(",\"tags\":[{}]", tags.join(",")));
    let (plan, credits) = (dice.pick(&["free", "basic", "pro", "team"]), dice.below(100_000));
    let visits = dice.below(5000);
    add(
        &mut json,
        format_args!(
            ",\"plan\":\"{plan}\",\"balance\":{}.{:02},\"visits\":{visits}",
            credits / 100,
            credits % 100
        ),
    );
    if dice.one_in(3) {
        let words: Vec<&str> = (0..4 + dice.below(12)).map(|_| dice.pick(&WORDS)).collect();
        add(&mut json, format_args!(",\"note\":\"{}\"", words.join(" ")));
    }
    json.push('}');
    json
}

fn add(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_follows_from_its_key() {
        for values in [Values::Text(100), Values::Json] {
            assert_eq!(values.of("bench/0000000001"), values.of("bench/0000000001"));
            assert_ne!(values.of("bench/0000000001"), values.of("bench/0000000002"));
        }
    }

    #[test]
    fn text_has_its_size_and_is_plain() {
        for size in [0, 1, 100, 5000] {
            let text = Values::Text(size).of("k");
            let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !b"\"\\".contains(byte);
            assert!(text.len() == size && text.iter().all(plain), "{text:?}");
        }
    }

    #[test]
    fn users_are_json_and_not_all_alike() {
        let users = (0..1000).map(|number| Values::Json.of(&format!("bench/{number:010}")));
        let users: Vec<serde_json::Value> =
            users.map(|user| serde_json::from_slice(&user).expect("JSON")).collect();
        for field in ["id", "name", "email", "active", "created", "address", "tags", "balance"] {
            assert!(users.iter().all(|user| user.get(field).is_some()), "{field}");
        }
        for field in ["last_login", "phone", "note"] {
            let some = users.iter().filter(|user| user.get(field).is_some()).count();
            assert!((200..900).contains(&some), "{field}: {some}");
        }
        let mut names: Vec<String> = users.iter().map(|user| user["email"].to_string()).collect();
        names.sort();
        names.dedup();
        assert!(names.len() > 980, "{}", names.len());
    }
}
