//! Many keys: a page at a time, or all of them as a stream; and how many there are.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::stream::{self, Stream, TryStreamExt};
use reqwest::Method;
use serde_json::value::RawValue;

use crate::client::{Client, ClientError, Request};
use crate::types::http::{CountBody, DeletedBody, ItemBody, PATH_COUNT, PATH_KEYS, PageBody};
use crate::types::key::Key;
use crate::types::kv::Consistency;
use crate::types::limits::{SCAN_LIMIT_DEFAULT, SCAN_LIMIT_MAX};
use crate::types::scan::Listed;
use crate::types::value::{Value, ValueKind};

/// Which keys are listed, and how. The default is all of them, in the order of their bytes.
#[expect(clippy::struct_excessive_bools, reason = "two independent facts, each with its name")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanOptions {
    /// What they start with.
    pub prefix: String,
    /// The first that may be listed; empty for no bound.
    pub start: String,
    /// The first that is not any more; empty for no bound.
    pub end: String,
    /// The most keys in one page, from 1 to 10,000.
    pub limit: u32,
    /// From the last one down.
    pub reverse: bool,
    /// Without their values.
    pub keys_only: bool,
    /// How fresh.
    pub consistency: Consistency,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            start: String::new(),
            end: String::new(),
            limit: SCAN_LIMIT_DEFAULT,
            reverse: false,
            keys_only: false,
            consistency: Consistency::default(),
        }
    }
}

/// One page of a scan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The keys, in the order asked for. A stored JSON string is shown as text: an answer about many keys
    /// does not tell them apart.
    pub items: Vec<Listed>,
    /// What the next page is asked for with; `None` after the last.
    pub cursor: Option<String>,
}

impl Client {
    /// One page of the keys that `options` ask for: the first, or the one behind `cursor`, which must have
    /// come with a page of the same options.
    ///
    /// It may be shorter than its limit; only one without a cursor is the last.
    pub async fn scan(
        &self,
        options: &ScanOptions,
        cursor: Option<&str>,
    ) -> Result<Page, ClientError> {
        let limit = options.limit.to_string();
        let mut request = Request::get(PATH_KEYS);
        request.query = vec![
            ("prefix", &options.prefix),
            ("start", &options.start),
            ("end", &options.end),
            ("limit", &limit),
            ("reverse", if options.reverse { "true" } else { "false" }),
            ("keys_only", if options.keys_only { "true" } else { "false" }),
            ("consistency", options.consistency.name()),
            ("cursor", cursor.unwrap_or_default()),
        ];
        let answer = self.send(request).await?;
        let page: PageBody = answer.body()?;
        let odd = |reason| answer.odd(reason);
        let items = page.items.into_iter().map(listed).collect::<Result<_, _>>().map_err(odd)?;
        Ok(Page { items, cursor: page.cursor })
    }

    /// All keys that `options` ask for, fetched in pages as large as a server gives, whatever their limit.
    /// After an error it ends.
    pub fn scan_all(
        &self,
        options: ScanOptions,
    ) -> impl Stream<Item = Result<Listed, ClientError>> + Send {
        let options = ScanOptions { limit: SCAN_LIMIT_MAX, ..options };
        let begun = (self.clone(), options, Some(None::<String>));
        let pages = stream::try_unfold(begun, async |(client, options, cursor)| {
            let Some(cursor) = cursor else { return Ok(None) };
            let Page { items, cursor } = client.scan(&options, cursor.as_deref()).await?;
            let items = stream::iter(items.into_iter().map(Ok));
            Ok(Some((items, (client, options, cursor.map(Some)))))
        });
        pages.try_flatten()
    }

    /// Removes all keys that start with `prefix`, all there are if it is empty, and says how many they
    /// were. Not one change but many: a key that is written meanwhile may stay.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<u64, ClientError> {
        let mut request = Request::get(PATH_KEYS);
        request.method = Method::DELETE;
        request.query.push(("prefix", prefix));
        Ok(self.send(request).await?.body::<DeletedBody>()?.deleted)
    }

    /// How many keys start with `prefix`; all, if it is empty.
    pub async fn count(&self, prefix: &str) -> Result<u64, ClientError> {
        let mut request = Request::get(PATH_COUNT);
        request.query.push(("prefix", prefix));
        Ok(self.send(request).await?.body::<CountBody>()?.count)
    }
}

/// What an item of a page says, or what is wrong with it.
pub(super) fn listed(item: ItemBody) -> Result<Listed, String> {
    let ItemBody { key, value, encoding, ts, version, expires } = item;
    let key = Key::new(key).map_err(|error| error.to_string())?;
    let value = value.map(|json| value_of(&json, encoding.as_deref()));
    Ok(Listed { key, value: value.transpose()?, ts, version, expires })
}

/// The value that an answer shows. A stored JSON string looks like text.
pub(super) fn value_of(json: &RawValue, encoding: Option<&str>) -> Result<Value, String> {
    let text = || serde_json::from_str::<String>(json.get()).map_err(|error| error.to_string());
    match encoding {
        Some("base64") => {
            BASE64_STANDARD.decode(text()?).map(Value::bytes).map_err(|error| error.to_string())
        }
        Some(other) => Err(format!("an encoding that is not known: {other}")),
        None if json.get().starts_with('"') => text().map(Value::text),
        None => Ok(Value { kind: ValueKind::Json, data: json.get().to_owned().into() }),
    }
}
