//! The Rust client of `SageDB`, over its HTTP API.
//!
//! ```no_run
//! use sagedb::client::{Client, ClientError};
//! use sagedb::types::error::WriteOutcome;
//! use sagedb::types::value::Value;
//!
//! # async fn example() -> Result<(), ClientError> {
//! let client = Client::new(["http://127.0.0.1:4000"])?;
//! match client.put("user:1", Value::text("Ada")).await {
//!     Ok(written) => println!("version {}", written.version),
//!     Err(error) if error.outcome() == WriteOutcome::NotApplied => println!("safe to send again"),
//!     Err(error) => println!("may or may not be stored: {error}"),
//! }
//! println!("{} users", client.count("user:").await?);
//! if let Some(item) = client.get("user:1").await? {
//!     println!("{:?}, written at {} ms", item.value, item.ts);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Promises: every call ends within its timeout, and [`ClientError::outcome`] says that a write
//! was not applied only where that is certain: the server said so, or the request was never sent.
//! Whatever is lost after sending is unknown, and is never sent a second time, unless the write has an
//! idempotency key ([`WriteOptions`]). With several URLs
//! a request goes on to the next as long as nothing can have been applied; the URL that last
//! answered is asked first.
//!
//! Refuses `https` (put a proxy before it) and follows no redirects. Honours the usual proxy
//! environment variables.

mod answer;
mod error;
mod scan;
mod txn;
mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use serde::de::DeserializeOwned;

use crate::types::command::Condition;
use crate::types::deadline::Deadline;
use crate::types::error::WriteOutcome;
use crate::types::http::{
    CONTENT_BYTES, CONTENT_JSON, CONTENT_TEXT, ClusterBody, HEADER_IDEMPOTENCY_KEY,
    HEADER_MIN_INDEX, HealthBody, PATH_CLUSTER, PATH_HEALTH, PATH_INCR, PATH_KV, PATH_READY,
    PATH_ROUTE, PATH_STATUS, PATH_TOUCH, ReadyBody, RouteBody, ShardStatus, WriteBody,
};
use crate::types::ids::Index;
use crate::types::item::Item;
use crate::types::kv::{Consistency, GroupIndex};
use crate::types::limits::{
    CLIENT_IDLE_CONNECTIONS_MAX, CLIENT_MARGIN, CONNECT_TIMEOUT, MIN_INDEXES_MAX,
    REQUEST_TIMEOUT_DEFAULT, REQUEST_TIMEOUT_MAX,
};
use crate::types::once::IdempotencyKey;
use crate::types::url::base_url;
use crate::types::value::{Value, ValueKind};

use answer::Answer;
pub use error::ClientError;
pub use scan::{Page, ScanOptions};
pub use txn::{OpAnswer, TxnAnswer};
pub use watch::{EventKind, Watch, WatchEvent, WatchOptions, Watched};

/// A client of one cluster or one group. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    urls: Arc<[String]>,
    /// Which URL answered last.
    preferred: Arc<AtomicUsize>,
    timeout: Duration,
    /// How far it has seen each group come, if its stale reads shall not go back behind that.
    seen: Option<Arc<Seen>>,
}

/// The newest position of each group, by its name.
type Seen = Mutex<BTreeMap<Arc<str>, Index>>;

/// One request, as it may be sent to several servers one after another.
struct Request<'a> {
    method: Method,
    path: &'static str,
    query: Vec<(&'static str, &'a str)>,
    value: Option<&'a Value>,
    options: Option<&'a WriteOptions>,
    at_least: Vec<GroupIndex>,
}

/// How a write is made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriteOptions {
    /// What must hold of the key just then, if anything.
    pub condition: Option<Condition>,
    /// The name of this write: under it, it takes effect once and has one answer, however often it is
    /// sent within ten minutes. So it is also sent to the next server when an answer is lost.
    pub idempotency_key: Option<IdempotencyKey>,
    /// How long the value lasts, from 1 ms to 365 days; for ever if it is not said. Of puts only.
    pub ttl: Option<Duration>,
}

/// How a key is read. The default sees every write that was answered before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReadOptions {
    /// How fresh.
    pub consistency: Consistency,
    /// Positions that the state must have reached, as [`WriteBody::index`] gives them, one of each group at
    /// most; those of other groups than the key's mean nothing.
    pub at_least: Vec<GroupIndex>,
}

impl<'a> Request<'a> {
    fn get(path: &'static str) -> Self {
        let (query, at_least) = (Vec::new(), Vec::new());
        Self { method: Method::GET, path, query, value: None, options: None, at_least }
    }

    fn kv(method: Method, key: &'a str) -> Self {
        Self { method, query: vec![("key", key)], ..Self::get(PATH_KV) }
    }

    /// Whether it can be sent again without doing anything twice.
    fn is_repeatable(&self) -> bool {
        let named = self.options.is_some_and(|options| options.idempotency_key.is_some());
        self.method.is_safe() || named
    }
}

impl Client {
    /// A client that asks the servers at `urls`, each `http://host:port`: coordinators, or members
    /// of one group.
    ///
    /// Connects when first used.
    pub fn new<I>(urls: I) -> Result<Self, ClientError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let config = |reason: String| ClientError::Config { reason };
        let urls = urls.into_iter().map(|url| base_url(url.as_ref()));
        let urls: Arc<[String]> =
            urls.collect::<Result<_, _>>().map_err(|error| config(error.to_string()))?;
        if urls.is_empty() {
            return Err(config("no URL was given; name at least one server".into()));
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("sage/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(CLIENT_IDLE_CONNECTIONS_MAX)
            // Both would send a write again without asking what became of the first.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .map_err(|error| config(error::reason(error)))?;
        let preferred = Arc::new(AtomicUsize::new(0));
        Ok(Self { http, urls, preferred, timeout: REQUEST_TIMEOUT_DEFAULT, seen: None })
    }

    /// The same client with a session of its own: its stale reads see at least what it, and its clones
    /// from then on, have written and read before, whichever replica answers.
    ///
    /// ```no_run
    /// # use sagedb::client::{Client, ClientError, ReadOptions};
    /// # use sagedb::types::kv::Consistency;
    /// # use sagedb::types::value::Value;
    /// # async fn example() -> Result<(), ClientError> {
    /// let client = Client::new(["http://127.0.0.1:4000"])?.with_session();
    /// client.put("cart", Value::text("3 apples")).await?;
    /// let stale = ReadOptions { consistency: Consistency::Stale, ..ReadOptions::default() };
    /// let cart = client.get_with("cart", &stale).await?; // by any replica, and never older than that
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_session(mut self) -> Self {
        self.seen = Some(Arc::default());
        self
    }

    /// The same client with another timeout for every call, from 1 ms to 60 s; 5 s is the default.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.clamp(Duration::from_millis(1), REQUEST_TIMEOUT_MAX);
        self
    }

    /// Writes `value` under `key`.
    pub async fn put(&self, key: &str, value: Value) -> Result<WriteBody, ClientError> {
        let mut request = Request::kv(Method::PUT, key);
        request.value = Some(&value);
        self.send(request).await?.written()
    }

    /// Writes `value` under `key` as `options` say. If their condition does not hold, the error has the
    /// code `version_mismatch`, and nothing has changed.
    pub async fn put_with(
        &self,
        key: &str,
        value: Value,
        options: &WriteOptions,
    ) -> Result<WriteBody, ClientError> {
        let ttl = options.ttl.map(as_text);
        let mut request = Request::kv(Method::PUT, key);
        request.value = Some(&value);
        request.options = Some(options);
        request.query.extend(ttl.as_deref().map(|ttl| ("ttl", ttl)));
        self.send(request).await?.written()
    }

    /// Lets the value that `key` has last for `ttl` from now on, or for ever; its version stays. If there
    /// is none, the error has the code `key_not_found`. The condition and the name of `options` count as
    /// in [`Client::put_with`].
    pub async fn touch(
        &self,
        key: &str,
        ttl: Option<Duration>,
        options: &WriteOptions,
    ) -> Result<WriteBody, ClientError> {
        let ttl = ttl.map_or_else(|| "none".to_owned(), as_text);
        let mut request = Request { path: PATH_TOUCH, ..Request::kv(Method::POST, key) };
        request.options = Some(options);
        request.query.push(("ttl", &ttl));
        self.send(request).await?.written()
    }

    /// Adds `by` to the JSON integer that `key` has, or to 0, and says in the answer's `value` what that
    /// comes to. If it has another value, the error has the code `not_an_integer`. The condition and
    /// the name of `options` count as in [`Client::put_with`].
    pub async fn incr(
        &self,
        key: &str,
        by: i64,
        options: &WriteOptions,
    ) -> Result<WriteBody, ClientError> {
        let by = by.to_string();
        let mut request = Request { path: PATH_INCR, ..Request::kv(Method::POST, key) };
        request.options = Some(options);
        request.query.push(("by", &by));
        self.send(request).await?.written()
    }

    /// Removes `key` as `options` say, as [`Client::put_with`] writes.
    pub async fn delete_with(
        &self,
        key: &str,
        options: &WriteOptions,
    ) -> Result<WriteBody, ClientError> {
        let mut request = Request::kv(Method::DELETE, key);
        request.options = Some(options);
        self.send(request).await?.written()
    }

    /// Removes `key`; the answer's `existed` says whether it was there.
    pub async fn delete(&self, key: &str) -> Result<WriteBody, ClientError> {
        self.send(Request::kv(Method::DELETE, key)).await?.written()
    }

    /// Reads `key`, seeing every write that was answered before.
    pub async fn get(&self, key: &str) -> Result<Option<Item>, ClientError> {
        self.get_with(key, &ReadOptions::default()).await
    }

    /// Reads `key` as `options` say.
    pub async fn get_with(
        &self,
        key: &str,
        options: &ReadOptions,
    ) -> Result<Option<Item>, ClientError> {
        let mut request = Request::kv(Method::GET, key);
        let mut consistency = options.consistency;
        request.at_least.clone_from(&options.at_least);
        if consistency == Consistency::Stale {
            self.ask_for_seen(&mut request.at_least);
            // So many groups that a header can't name them all.
            if request.at_least.len() > MIN_INDEXES_MAX {
                consistency = Consistency::Linearizable;
                request.at_least.clone_from(&options.at_least);
            }
        }
        request.query.extend([("raw", "true"), ("consistency", consistency.name())]);
        self.send(request).await?.item()
    }

    /// Adds what this session has seen.
    fn ask_for_seen(&self, at_least: &mut Vec<GroupIndex>) {
        let Some(seen) = &self.seen else { return };
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (group, index) in &*seen {
            match at_least.iter_mut().find(|at| at.group == *group) {
                Some(at) => at.index = at.index.max(*index),
                None => at_least.push(GroupIndex { group: Arc::clone(group), index: *index }),
            }
        }
    }

    /// Takes note of how far the groups have come that an answer tells of.
    fn note(&self, answer: &Answer) {
        let Some(seen) = &self.seen else { return };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for GroupIndex { group, index } in answer.positions() {
            let newest = seen.entry(group).or_default();
            *newest = index.max(*newest);
        }
    }

    /// Where `key` lives; only a coordinator knows.
    pub async fn route(&self, key: &str) -> Result<RouteBody, ClientError> {
        let mut request = Request::get(PATH_ROUTE);
        request.query.push(("key", key));
        self.send(request).await?.body()
    }

    /// The topology and every replica's state; only a coordinator knows.
    pub async fn cluster(&self) -> Result<ClusterBody, ClientError> {
        self.read(PATH_CLUSTER).await
    }

    /// What a replica knows of itself and its group; only a shard answers.
    pub async fn status(&self) -> Result<ShardStatus, ClientError> {
        self.read(PATH_STATUS).await
    }

    /// Whether a server serves at all.
    pub async fn health(&self) -> Result<HealthBody, ClientError> {
        self.read(PATH_HEALTH).await
    }

    /// Whether requests can succeed, and why not; asks one server only.
    pub async fn ready(&self) -> Result<ReadyBody, ClientError> {
        let url = &self.urls[self.preferred.load(Ordering::Relaxed)];
        let deadline = Deadline::after(self.timeout);
        self.attempt(url, &Request::get(PATH_READY), deadline).await?.body()
    }

    /// The servers, the one that answered last first.
    fn urls_in_turn(&self) -> impl Iterator<Item = String> {
        let first = self.preferred.load(Ordering::Relaxed);
        (0..self.urls.len()).map(move |turn| self.urls[(first + turn) % self.urls.len()].clone())
    }

    async fn read<T: DeserializeOwned>(&self, path: &'static str) -> Result<T, ClientError> {
        self.send(Request::get(path)).await?.body()
    }

    /// Asks one server after the other until one answers or nothing more may be tried.
    async fn send(&self, request: Request<'_>) -> Result<Answer, ClientError> {
        let deadline = Deadline::after(self.timeout);
        let (first, count) = (self.preferred.load(Ordering::Relaxed), self.urls.len());
        let mut turn = 0;
        // An earlier attempt of unknown fate: what the next one comes to says nothing about it, unless
        // it is the answer of the group.
        let mut lost: Option<ClientError> = None;
        loop {
            let at = (first + turn) % count;
            let left_to_try = u32::try_from(count - turn).unwrap_or(u32::MAX);
            // A write without a name gets all the time there is: it can't be tried elsewhere once it
            // was sent.
            let share = if request.is_repeatable() { left_to_try } else { 1 };
            let until = deadline.at_most(deadline.left() / share);
            let answer = self.attempt(&self.urls[at], &request, until).await;
            if let Ok(answer) = &answer {
                self.note(answer);
            }
            match answer.and_then(Answer::accepted) {
                Ok(mut answer) => {
                    answer.after_lost = lost.is_some();
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => {
                    turn += 1;
                    let unknown = error.outcome() == WriteOutcome::Unknown;
                    let again = error.may_go_elsewhere()
                        || request.is_repeatable() && (unknown || lost.is_some());
                    if error.is_settled() || !again || turn == count || deadline.has_passed() {
                        let lost = lost.filter(|_| !error.is_settled());
                        return Err(lost.unwrap_or(error));
                    }
                    if unknown {
                        lost = Some(error);
                    }
                }
            }
        }
    }

    /// Asks one server once.
    async fn attempt(
        &self,
        url: &str,
        request: &Request<'_>,
        deadline: Deadline,
    ) -> Result<Answer, ClientError> {
        let left = deadline.left();
        let write = !request.method.is_safe();
        let theirs =
            left.saturating_sub(CLIENT_MARGIN.min(left / 10)).max(Duration::from_millis(1));
        let mut builder = self
            .http
            .request(request.method.clone(), format!("{url}{}", request.path))
            .query(&request.query)
            .query(&[("timeout", format!("{}ms", theirs.as_millis()))])
            .timeout(left);
        if let Some(value) = request.value {
            let content_type = match value.kind {
                ValueKind::Text => CONTENT_TEXT,
                ValueKind::Json => CONTENT_JSON,
                ValueKind::Bytes => CONTENT_BYTES,
            };
            builder = builder.header(CONTENT_TYPE, content_type).body(value.data.clone());
        }
        let key = request.options.and_then(|options| options.idempotency_key.as_ref());
        if let Some(key) = key {
            builder = builder.header(HEADER_IDEMPOTENCY_KEY, key.as_str());
        }
        if !request.at_least.is_empty() {
            let at_least: Vec<_> = request.at_least.iter().map(GroupIndex::to_string).collect();
            builder = builder.header(HEADER_MIN_INDEX, at_least.join(", "));
        }
        builder = match request.options.and_then(|options| options.condition.as_ref()) {
            None => builder,
            Some(Condition::Absent) => builder.header(IF_NONE_MATCH, "*"),
            Some(Condition::Present) => builder.header(IF_MATCH, "*"),
            Some(Condition::Version(versions)) => {
                let tags: Vec<_> =
                    versions.iter().map(|version| format!("\"{version}\"")).collect();
                builder.header(IF_MATCH, tags.join(", "))
            }
        };
        let failed = |error| ClientError::lost(error, url, write, self.timeout);
        let response = builder.send().await.map_err(failed)?;
        Answer::read(response, url, write, self.timeout).await
    }
}

/// As a server reads it.
fn as_text(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
