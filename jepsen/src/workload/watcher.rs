//! Who watches: all keys through coordinators, one key each, and all keys of one group at its replicas.
//!
//! Stands on the client library, which goes on by itself wherever a server is left that tells. Now and then
//! a watcher leaves on purpose and goes on at another server from its last position. One that all its
//! servers tell that this is too long ago (`compacted`) begins anew: it watches from now on, and reads the
//! keys once that holds.
//!
//! Ends when it was told what a read has found of each of its keys, when everything was over.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::RngExt;
use sagedb::client::{Client, ClientError, EventKind, Watch, WatchEvent, WatchOptions, Watched};
use tokio::sync::watch::{self as latest, Receiver};
use tokio::time::{Instant, timeout, timeout_at};

use crate::checker::{Anomaly, Kind};
use crate::client::Server;
use crate::cluster::group_name;
use crate::history::{Action, Event, Recorder, Stage, Told, Value};
use crate::options::{Options, Workload};
use crate::workload::Servers;
use crate::workload::actor::{Actor, bad_answer};
use crate::workload::value::number_of;
use crate::workload::watch::{ALL, Keys, PREFIX, is_one};

/// Watchers of one key each.
const ONES: usize = 3;
/// Their names in the history begin here.
const FIRST: u32 = 2_000_000_000;
/// How long one look waits for a first change.
const LOOK: Duration = Duration::from_secs(5);
/// How long it waits for more.
const MORE: Duration = Duration::from_millis(100);
/// The most changes of one look.
const TOLD_MAX: usize = 200;
/// Of a hundred looks, after so many the watcher goes to another server.
const LEAVES_PERCENT: u32 = 2;
/// Between two tries to watch.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a request may take that begins a watch.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a watcher may take, once everything is over, until it was told all.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// What was read of each key when everything was over: its version, and its group.
type Goal = BTreeMap<Arc<str>, (Option<u64>, Option<Arc<str>>)>;

/// All watchers of a run, at work.
#[derive(Debug)]
pub(crate) struct Watchers {
    goal: latest::Sender<Option<Arc<Goal>>>,
    tasks: tokio::task::JoinSet<Option<Anomaly>>,
}

impl Watchers {
    /// Those of the workload; most have none.
    pub(crate) fn start(
        options: &Options,
        servers: &Servers,
        recorder: &Arc<Recorder>,
    ) -> Result<Self> {
        let (goal, told) = latest::channel(None);
        let mut tasks = tokio::task::JoinSet::new();
        if options.workload == Workload::Watch {
            for watcher in watchers(options, servers, recorder)? {
                tasks.spawn(watcher.run(told.clone()));
            }
        }
        Ok(Self { goal, tasks })
    }

    /// Waits until everybody was told what was read at the end; who was not in time.
    pub(crate) async fn finish(mut self, recorder: &Recorder) -> Result<Vec<Anomaly>> {
        self.goal.send_replace(Some(Arc::new(goal(&recorder.events()))));
        let mut anomalies = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            anomalies.extend(ended.context("a watcher panicked")?);
        }
        Ok(anomalies)
    }
}

/// What is watched, as the history calls it; the group, if it is of one only; and where.
type Who = (Arc<str>, Option<Arc<str>>, Vec<Server>);

fn goal(history: &[Event]) -> Goal {
    let read = |event: &&Event| event.f == Action::FinalRead && event.stage == Stage::Ok;
    let read = history.iter().filter(read).filter(|event| event.key.starts_with(PREFIX));
    read.map(|event| (Arc::clone(&event.key), (event.version, event.group.clone()))).collect()
}

fn watchers(
    options: &Options,
    servers: &Servers,
    recorder: &Arc<Recorder>,
) -> Result<Vec<Watcher>> {
    let keys = Arc::new(Keys::new(options.groups).all());
    let coordinators = &servers.coordinators;
    let mut who: Vec<Who> = Vec::new();
    for at in 0..coordinators.len().min(2) {
        let mut turned = coordinators.clone();
        turned.rotate_left(at);
        who.push((ALL.into(), None, turned));
    }
    for (group, replicas) in servers.replicas.chunks(usize::from(options.replicas)).enumerate() {
        let group: Arc<str> = group_name(group).into();
        who.push((format!("{ALL} of {group}").into(), Some(group), replicas.to_vec()));
    }
    let ones = keys.iter().step_by((keys.len() / ONES).max(1)).take(ONES);
    who.extend(ones.map(|key| (Arc::clone(key), None, coordinators.clone())));
    let watchers = (0..).zip(who).map(|(at, (scope, group, servers_of_it))| {
        let actor = Actor::new((at, options.clients), options.seed ^ 0x57a7, servers, recorder)?;
        let actor = actor.named(FIRST + u32::from(at));
        let keys = Arc::clone(&keys);
        let (since, compacted, seen) = (None, 0, HashMap::new());
        Ok(Watcher { actor, scope, group, servers: servers_of_it, keys, since, compacted, seen })
    });
    watchers.collect()
}

/// One watcher.
struct Watcher {
    actor: Actor,
    /// As the history calls what it watches.
    scope: Arc<str>,
    /// The group, if it watches one only.
    group: Option<Arc<str>>,
    /// Those that it may ask, the first one first.
    servers: Vec<Server>,
    /// Every key that there is.
    keys: Arc<Vec<Arc<str>>>,
    /// Where to go on.
    since: Option<String>,
    /// How many servers have said, one after the other, that this is too long ago.
    compacted: usize,
    /// The version that it was told last of each key, and whether that was of nothing.
    seen: HashMap<Arc<str>, (u64, bool)>,
}

impl Watcher {
    async fn run(mut self, mut goal: Receiver<Option<Arc<Goal>>>) -> Option<Anomaly> {
        let mut until = None;
        let mut open: Option<Watch> = None;
        loop {
            let missing = goal.borrow_and_update().as_deref().map(|goal| self.missing(goal));
            let over = match missing {
                None => false,
                Some(None) => return self.ends(None),
                Some(Some(missing)) => {
                    let until = *until.get_or_insert_with(|| Instant::now() + SETTLE_MAX);
                    if Instant::now() > until {
                        return self.ends(Some(missing));
                    }
                    true
                }
            };
            let Some(watch) = open.take() else {
                open = self.open().await;
                continue;
            };
            // Until everything is over, somebody may have to be woken to hear of it.
            let look = if over { MORE * 10 } else { LOOK };
            open = self.look(watch, look, &mut goal).await;
            if self.since.is_some() && self.actor.rng.random_range(0..100) < LEAVES_PERCENT {
                open = None;
            }
        }
    }

    /// A key that it was not told the end of yet.
    fn missing(&self, goal: &Goal) -> Option<String> {
        let mine = goal.iter().filter(|(key, (_, group))| {
            if is_one(&self.scope) {
                **key == self.scope
            } else {
                self.group.is_none() || self.group == *group
            }
        });
        let mut missing = mine.filter(|(key, (version, _))| match (version, self.seen.get(*key)) {
            (Some(version), Some((told, _))) => told < version,
            (None, Some((_, nothing))) => !nothing,
            (_, None) => true,
        });
        let (key, (version, _)) = missing.next()?;
        let last = self.seen.get(key).map_or(0, |(told, _)| *told);
        Some(format!("{key} has version {version:?} in the end, told was {last}"))
    }

    fn ends(&self, missing: Option<String>) -> Option<Anomaly> {
        let mut event = self.begins(Action::WatchEnd);
        event.stage = if missing.is_none() { Stage::Ok } else { Stage::Fail };
        event.error.clone_from(&missing);
        self.actor.record(&event);
        missing.map(|missing| Anomaly {
            kind: Kind::NotRecovered,
            key: Arc::clone(&self.scope),
            detail: format!("a watcher did not settle: {missing}"),
            events: Vec::new(),
        })
    }

    /// Takes down the beginning of something.
    fn begins(&self, f: Action) -> Event {
        let event = self.actor.event(&self.servers[0], f, &self.scope, Value::None);
        self.actor.record(&event);
        event
    }

    /// Begins, or goes on at the next server.
    async fn open(&mut self) -> Option<Watch> {
        let resumes = self.since.is_some();
        if resumes {
            self.servers.rotate_left(1);
        }
        let f = if resumes { Action::WatchResume } else { Action::WatchBegin };
        let mut event = self.begins(f);
        let opened = self.ask().await;
        match &opened {
            Ok(_) => {
                event.stage = Stage::Ok;
                event.group.clone_from(&self.group);
            }
            Err(error) => {
                event.stage = Stage::Fail;
                event.error = Some(error.to_string());
            }
        }
        self.actor.record(&event);
        match opened {
            Ok(watch) => {
                self.compacted = 0;
                if !resumes {
                    self.read_all().await;
                }
                Some(watch)
            }
            Err(error) => {
                self.failed(&error);
                tokio::time::sleep(PAUSE).await;
                None
            }
        }
    }

    async fn ask(&self) -> Result<Watch, ClientError> {
        let client = Client::new(self.servers.iter().map(|server| &*server.url))?;
        let keys = if is_one(&self.scope) {
            Watched::Key(self.scope.to_string())
        } else {
            Watched::Prefix(PREFIX.into())
        };
        let options = WatchOptions { keys, since: self.since.clone() };
        client.with_timeout(TIMEOUT).watch(options).await
    }

    /// What is there when it has begun: everything behind that will be told.
    async fn read_all(&mut self) {
        let mine = |key: &&Arc<str>| !is_one(&self.scope) || **key == self.scope;
        let mine: Vec<Arc<str>> = self.keys.iter().filter(mine).cloned().collect();
        for key in mine {
            let server = self.actor.coordinator();
            let decode = |json: Option<&str>| number_of(&key, json);
            self.actor.read(&server, (Action::Read, &key), decode).await;
        }
    }

    /// Waits for changes and takes those that there are.
    async fn look(
        &mut self,
        mut watch: Watch,
        wait: Duration,
        goal: &mut Receiver<Option<Arc<Goal>>>,
    ) -> Option<Watch> {
        let mut event = self.begins(Action::Watch);
        let mut told = Vec::new();
        let first = tokio::select! {
            first = timeout(wait, watch.next()) => first.ok(),
            changed = goal.changed() => changed.err().and(None),
        };
        let mut next = first;
        let until = Instant::now() + MORE;
        let failed = loop {
            match next {
                None => break None,
                Some(Err(error)) => break Some(error),
                Some(Ok(change)) => told.push(self.take(change)),
            }
            if told.len() == TOLD_MAX {
                break None;
            }
            next = timeout_at(until, watch.next()).await.ok();
        };
        self.since = watch.since().map(str::to_owned).or(self.since.take());
        event.stage = Stage::Ok;
        event.error = failed.as_ref().map(ToString::to_string);
        event.value = Value::Told { told };
        self.actor.record(&event);
        match failed {
            None => Some(watch),
            Some(error) => {
                self.failed(&error);
                None
            }
        }
    }

    /// What an error means for the next try.
    fn failed(&mut self, error: &ClientError) {
        match error {
            // Another replica may remember more.
            ClientError::Api { code, .. } if code == "compacted" => {
                self.compacted += 1;
                if self.compacted >= self.servers.len() {
                    self.since = None;
                }
            }
            ClientError::Api { status: 429 | 503 | 504, .. }
            | ClientError::Connect { .. }
            | ClientError::Timeout { .. } => {}
            ClientError::Api { .. }
            | ClientError::Config { .. }
            | ClientError::OutcomeUnknown { .. }
            | ClientError::Protocol { .. } => {
                let anomaly = bad_answer(&self.servers[0], &self.scope, &error.to_string());
                self.actor.saw(anomaly);
            }
        }
    }

    fn take(&mut self, change: WatchEvent) -> Told {
        let WatchEvent { kind, item, id } = change;
        let key: Arc<str> = item.key.as_str().into();
        self.seen.insert(Arc::clone(&key), (item.version, kind != EventKind::Put));
        let json = item.value.map(|value| {
            let text = String::from_utf8_lossy(&value.data);
            serde_json::to_string(&text).expect("a text has a JSON form")
        });
        Told {
            kind: kind.name().into(),
            value: number_of(&key, json.as_deref()),
            version: item.version,
            id: id.into(),
            key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::synthetic;

    #[test]
    fn what_is_read_at_the_end_has_to_be_told() {
        let event = |key: &str, f, stage, version| {
            let event = synthetic::event(0, 1, stage, f, Value::Number(1));
            Event { key: key.into(), version, group: Some("g1".into()), ..event }
        };
        let history = [
            event("watch-{1}-a", Action::Read, Stage::Ok, Some(3)),
            event("watch-{1}-a", Action::FinalRead, Stage::Fail, None),
            event("watch-{1}-a", Action::FinalRead, Stage::Ok, Some(4)),
            event("watch-{1}-b", Action::FinalRead, Stage::Ok, None),
            event("watch-{2}-a", Action::FinalRead, Stage::Fail, None),
            event("register-1", Action::FinalRead, Stage::Ok, Some(9)),
        ];
        let goal: Vec<_> = goal(&history).into_iter().collect();
        let expected = |key: &str, version| (Arc::from(key), (version, Some(Arc::from("g1"))));
        assert_eq!(goal, [expected("watch-{1}-a", Some(4)), expected("watch-{1}-b", None)]);
    }
}
