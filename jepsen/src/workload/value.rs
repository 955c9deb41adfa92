//! The texts that are written, and what a text that was read says about its write.

use crate::history::Value;

/// Lengths of values: mostly short, some long.
const PADDING: [usize; 8] = [0, 1, 10, 60, 100, 300, 1_000, 5_000];

/// The text that the key's write number `number` writes.
pub(crate) fn text(key: &str, number: u64) -> String {
    let at = usize::try_from(number).unwrap_or_default().wrapping_add(key.len());
    format!("{key}={number};{}", ".".repeat(PADDING[at % PADDING.len()]))
}

/// Which write a register's value, as its JSON was read, comes from.
pub(crate) fn number_of(key: &str, json: Option<&str>) -> Value {
    let Some(json) = json else { return Value::Number(0) };
    let foreign = || Value::Foreign { foreign: json.into() };
    let Ok(read) = serde_json::from_str::<String>(json) else { return foreign() };
    let rest = read.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
    let number = rest.and_then(|rest| rest.split_once(';')?.0.parse::<u64>().ok());
    match number.filter(|number| *number > 0 && read == text(key, *number)) {
        Some(number) => Value::Number(number),
        None => foreign(),
    }
}

/// The list that a key's value is, as its JSON was read.
pub(crate) fn list_of(json: Option<&str>) -> Value {
    let Some(json) = json else { return Value::List(Vec::new()) };
    match serde_json::from_str(json) {
        Ok(list) => Value::List(list),
        Err(_) => Value::Foreign { foreign: json.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_belongs_to_one_write_of_one_key() {
        let json = |text: &str| serde_json::to_string(text).expect("a text has a JSON form");
        let foreign = |json: &str| Value::Foreign { foreign: json.into() };
        for number in [1, 2, 3, 77, 100_000] {
            let text = text("key-1", number);
            let whole = json(&text);
            assert_eq!(number_of("key-1", Some(&whole)), Value::Number(number));
            assert_eq!(number_of("key", Some(&whole)), foreign(&whole));
            let cut = json(&text[..text.len() - 1]);
            assert_eq!(number_of("key-1", Some(&cut)), foreign(&cut));
        }
        assert_eq!(number_of("key-1", None), Value::Number(0));
        for text in ["", "key-1=", "key-1=0;", "key-1=x;", "key-1=1"] {
            let json = json(text);
            assert_eq!(number_of("key-1", Some(&json)), foreign(&json));
        }
        assert_eq!(number_of("key-1", Some("17")), foreign("17"));
    }

    #[test]
    fn a_list_is_numbers_or_foreign() {
        assert_eq!(list_of(None), Value::List(vec![]));
        assert_eq!(list_of(Some("[1, 2]")), Value::List(vec![1, 2]));
        for json in ["\"[1]\"", "[1,\"2\"]", "{}", "[-1]"] {
            assert_eq!(list_of(Some(json)), Value::Foreign { foreign: json.into() });
        }
    }
}
