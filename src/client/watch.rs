//! Watching keys: their changes as a stream that outlives servers, coordinators and leaders.

use bytes::BytesMut;
use reqwest::Response;
use tokio::time::timeout;
use tokio_util::codec::{Decoder, LinesCodec};

use crate::client::answer::Answer;
use crate::client::scan::listed;
use crate::client::{Client, ClientError, error};
use crate::types::http::{CONTENT_EVENTS, HEADER_LAST_EVENT_ID, ItemBody, PATH_WATCH};
use crate::types::limits::{
    EVENT_LINE_BYTES_MAX, WATCH_PROGRESS_INTERVAL, WATCH_RETRY_MAX, WATCH_RETRY_MIN,
};
use crate::types::scan::Listed;

/// Which keys are watched, and from where on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchOptions {
    /// Which keys.
    pub keys: Watched,
    /// From where on: an id that came with an event, or a position as [`WriteBody::index`] gives it, one of
    /// each group that is watched. From now on without it.
    ///
    /// [`WriteBody::index`]: crate::types::http::WriteBody::index
    pub since: Option<String>,
}

/// Which keys are watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Watched {
    /// One.
    Key(String),
    /// All that start with this; all there are, if it is empty.
    Prefix(String),
}

/// What happened to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// It has a value, another than before or the same again.
    Put,
    /// Its value was deleted.
    Delete,
    /// Its time to live was over.
    Expire,
}

impl EventKind {
    /// As it is called in `event:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Expire => "expire",
        }
    }
}

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventKind,
    /// The key behind the change; its value on [`EventKind::Put`] only. A stored JSON string is shown as text.
    pub item: Listed,
    /// Where to resume behind it.
    pub id: String,
}

/// A watch that is open. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    options: WatchOptions,
    open: Option<Open>,
}

/// One answer that is being read.
#[derive(Debug)]
struct Open {
    url: String,
    response: Response,
    lines: LinesCodec,
    unread: BytesMut,
    event: String,
    data: Option<String>,
    id: Option<String>,
}

impl Client {
    /// Watches keys: every change that is acknowledged after this returns will be told, in the order in
    /// which a key, and all keys of its group, changed, once.
    ///
    /// ```no_run
    /// # use sagedb::client::{Client, ClientError, WatchOptions, Watched};
    /// # async fn example() -> Result<(), ClientError> {
    /// let client = Client::new(["http://127.0.0.1:4000"])?;
    /// let keys = Watched::Prefix("user:".into());
    /// let mut watch = client.watch(WatchOptions { keys, since: None }).await?;
    /// loop {
    ///     let event = watch.next().await?;
    ///     println!("{} {}", event.kind.name(), event.item.key);
    /// }
    /// # }
    /// ```
    pub async fn watch(&self, options: WatchOptions) -> Result<Watch, ClientError> {
        let mut watch = Watch { client: self.clone(), options, open: None };
        watch.reopen().await?;
        Ok(watch)
    }
}

impl Watch {
    /// Waits for the next change, through the loss of servers: it asks them again for as long as it takes.
    /// May be dropped and called again at any time.
    ///
    /// # Errors
    /// Code `compacted` when what has changed since is not kept any more: read anew, and watch from there.
    /// Any other refusal that asking again does not help against.
    pub async fn next(&mut self) -> Result<WatchEvent, ClientError> {
        let mut pause = WATCH_RETRY_MIN;
        loop {
            let Some(open) = &mut self.open else {
                match self.reopen().await {
                    Ok(()) => {}
                    Err(error) if error.may_go_elsewhere() => {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(WATCH_RETRY_MAX);
                    }
                    Err(error) => return Err(error),
                }
                continue;
            };
            match open.next().await {
                Ok(Some(Told { id, event })) => {
                    pause = WATCH_RETRY_MIN;
                    self.options.since = Some(id);
                    if let Some(event) = event {
                        return Ok(event);
                    }
                }
                // It ended or was lost: another goes on where it was.
                Ok(None) => self.open = None,
                Err(error) => {
                    self.open = None;
                    return Err(error);
                }
            }
        }
    }

    /// Where to resume: everything before was told.
    pub fn since(&self) -> Option<&str> {
        self.options.since.as_deref()
    }

    /// Asks one server after the other until one tells, and where that begins: a watch that is lost before
    /// its first change goes on from there.
    async fn reopen(&mut self) -> Result<(), ClientError> {
        let mut failed = None;
        for url in self.client.urls_in_turn() {
            let open = async {
                let mut open = self.ask(&url).await?;
                let lost = || ClientError::Connect { url: url.clone(), reason: "it ended".into() };
                let first = open.next().await?.ok_or_else(lost)?;
                Ok::<_, ClientError>((open, first.id))
            };
            match open.await {
                Ok((open, id)) => {
                    (self.open, self.options.since) = (Some(open), Some(id));
                    return Ok(());
                }
                // Another may still have what this one has forgotten.
                Err(error) if error.may_go_elsewhere() || is_compacted(&error) => {
                    failed = Some(failed.filter(is_compacted).unwrap_or(error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| ClientError::Config { reason: "no URL was given".into() }))
    }

    async fn ask(&self, url: &str) -> Result<Open, ClientError> {
        let within = self.client.timeout;
        let mut request = self.client.http.get(format!("{url}{PATH_WATCH}"));
        request = match &self.options.keys {
            Watched::Key(key) => request.query(&[("key", key)]),
            Watched::Prefix(prefix) => request.query(&[("prefix", prefix)]),
        };
        request = request.query(&[("timeout", format!("{}ms", within.as_millis()))]);
        if let Some(since) = &self.options.since {
            request = request.header(HEADER_LAST_EVENT_ID, since);
        }
        let late =
            |_| ClientError::Connect { url: url.to_owned(), reason: "no answer in time".into() };
        let response = timeout(within, request.send()).await.map_err(late)?;
        let response = response.map_err(|error| ClientError::lost(error, url, false, within))?;
        let told = response.headers().get(reqwest::header::CONTENT_TYPE);
        if response.status() != 200 || told.is_none_or(|told| *told != CONTENT_EVENTS) {
            let answer = Answer::read(response, url, false, within).await?.accepted()?;
            return Err(answer.odd("an answer that is no stream of events"));
        }
        Ok(Open {
            url: url.to_owned(),
            response,
            lines: LinesCodec::new_with_max_length(EVENT_LINE_BYTES_MAX),
            unread: BytesMut::new(),
            event: String::new(),
            data: None,
            id: None,
        })
    }
}

/// One block of the stream that had an id.
struct Told {
    id: String,
    event: Option<WatchEvent>,
}

impl Open {
    /// The next block; `None` when the stream has ended, was lost, or has been silent for too long.
    async fn next(&mut self) -> Result<Option<Told>, ClientError> {
        loop {
            let line = self.lines.decode(&mut self.unread);
            match line.map_err(|error| self.odd(error.to_string()))? {
                Some(line) if line.is_empty() => {
                    if let Some(told) = self.block()? {
                        return Ok(Some(told));
                    }
                }
                Some(line) => self.field(&line),
                None => match timeout(WATCH_PROGRESS_INTERVAL * 3, self.response.chunk()).await {
                    Ok(Ok(Some(chunk))) => self.unread.extend_from_slice(&chunk),
                    Ok(Err(error)) => {
                        let reason = error::reason(error);
                        tracing::debug!(%reason, url = %self.url, "a watch was lost");
                        return Ok(None);
                    }
                    // It has ended, or been silent for too long.
                    Ok(Ok(None)) | Err(_) => return Ok(None),
                },
            }
        }
    }

    /// Takes one line; of fields that it does not know, and of comments, nothing.
    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event),
            "data" => self.data = Some(value.to_owned()),
            _ => {}
        }
    }

    /// What the lines since the last empty one say.
    fn block(&mut self) -> Result<Option<Told>, ClientError> {
        let (event, data) = (std::mem::take(&mut self.event), self.data.take());
        let Some(id) = self.id.take() else { return Ok(None) };
        let Some(data) = data else { return Ok(Some(Told { id, event: None })) };
        let kind = match event.as_str() {
            "put" => EventKind::Put,
            "delete" => EventKind::Delete,
            "expire" => EventKind::Expire,
            // Of a newer server.
            _ => return Ok(Some(Told { id, event: None })),
        };
        let item: ItemBody =
            serde_json::from_str(&data).map_err(|error| self.odd(error.to_string()))?;
        let item = listed(item).map_err(|reason| self.odd(reason))?;
        Ok(Some(Told { event: Some(WatchEvent { kind, item, id: id.clone() }), id }))
    }

    fn odd(&self, reason: impl Into<String>) -> ClientError {
        ClientError::protocol(&self.url, false, reason)
    }
}

fn is_compacted(error: &ClientError) -> bool {
    matches!(error, ClientError::Api { code, .. } if code == "compacted")
}
