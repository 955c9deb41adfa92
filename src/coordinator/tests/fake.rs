//! Groups without a network: they follow the store's rules about claims and ownership, know their
//! leader, and fail as they are told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::coordinator::peers::Peers;
use crate::rpc::{CallError, Target};
use crate::types::command::{Action, KeyWrite, Outcome, Refusal, Write};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::hash::Token;
use crate::types::http::{Role, ShardStatus};
use crate::types::ids::{GroupId, NodeId, SessionId, StateHash};
use crate::types::item::{Expiry, Item};
use crate::types::key::Key;
use crate::types::kv::{Consistency, GroupIndex, KvReply, KvRequest, Read, Written};
use crate::types::once::{Once, WriteId};
use crate::types::peer::{Identity, Reply, Request};
use crate::types::scan::{Found, Listed, Part, Scan, Span, Want};
use crate::types::topology::{Claim, Member};

/// How a replica treats calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Mood {
    #[default]
    Well,
    /// Nothing can be sent to it.
    Down,
    /// Carries writes and proposals out, and breaks the connection before it answers them.
    Forgetful,
    /// Takes calls, and neither carries them out nor answers.
    Hung,
    /// As it does with clients' requests; says who it is as ever.
    Slow,
}

#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub(super) member: Member,
    pub(super) mood: Mood,
    /// Client requests that it was sent.
    pub(super) asked: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) name: String,
    pub(super) replicas: Vec<Replica>,
    /// Which replica leads.
    pub(super) leader: Option<usize>,
    pub(super) claim: Option<Claim>,
    pub(super) confirmed: bool,
    pub(super) map: BTreeMap<Key, Item>,
    pub(super) index: u64,
    pub(super) sessions: BTreeSet<SessionId>,
    /// The newest write of each slot and its answer.
    pub(super) answers: BTreeMap<(SessionId, u32), (u64, KvReply)>,
    /// The same of deletions of spans.
    pub(super) deletions: BTreeMap<(SessionId, u32), (u64, Outcome)>,
}

/// The groups, and what carries calls to them.
#[derive(Clone, Debug)]
pub(super) struct Net(Arc<Mutex<Vec<Group>>>);

impl Net {
    /// `groups` founded groups of `replicas` each, called `shard-1` and so on.
    pub(super) fn new(groups: u64, replicas: u64) -> Self {
        let replica = |group: u64, replica: u64| Replica {
            member: Member {
                node: NodeId(100 * group + replica),
                url: format!("http://shard-{group}:{replica}"),
            },
            mood: Mood::Well,
            asked: 0,
        };
        let group = |at: u64| Group {
            id: GroupId(at),
            name: format!("shard-{at}"),
            replicas: (1..=replicas).map(|number| replica(at, number)).collect(),
            leader: Some(0),
            claim: None,
            confirmed: false,
            map: BTreeMap::new(),
            index: 0,
            sessions: BTreeSet::new(),
            answers: BTreeMap::new(),
            deletions: BTreeMap::new(),
        };
        Self(Arc::new(Mutex::new((1..=groups).map(group).collect())))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Group>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mood(&self, group: usize, mood: Mood) {
        self.lock()[group].replicas.iter_mut().for_each(|replica| replica.mood = mood);
    }

    /// The first URL of every group.
    pub(super) fn urls(&self) -> Vec<String> {
        self.lock().iter().map(|group| group.replicas[0].member.url.clone()).collect()
    }

    /// How often any replica was sent a client's request.
    pub(super) fn asked(&self) -> u32 {
        self.lock().iter().flat_map(|group| &group.replicas).map(|replica| replica.asked).sum()
    }

    /// Asserts that every key lies where its group's claim says.
    pub(super) fn assert_no_foreign_keys(&self) {
        for group in self.lock().iter() {
            let claim = group.claim.as_ref().expect("claimed");
            for key in group.map.keys() {
                assert!(claim.owns(Token::of_key(key)), "{key} lies in {}", group.name);
            }
        }
    }
}

impl Peers for Net {
    async fn call(
        &self,
        target: &Target,
        request: &Request,
        deadline: Deadline,
    ) -> Result<Reply, CallError> {
        // As over a network: others may come between.
        tokio::task::yield_now().await;
        let answer = {
            let mut groups = self.lock();
            let found = groups.iter_mut().find_map(|group| {
                let at = group.replicas.iter().position(|r| r.member.url == target.url)?;
                Some((group, at))
            });
            let Some((group, at)) = found else {
                return Err(CallError::NotSent(format!("{}: no such host", target.url)));
            };
            group.take(at, target, request)?
        };
        tokio::task::yield_now().await;
        if let Some(reply) = answer {
            return Ok(reply);
        }
        tokio::time::sleep_until(deadline.instant().into()).await;
        Err(CallError::Late(format!("{} did not answer in time", target.url)))
    }

    fn keep(&self, _targets: &BTreeSet<Target>) {}
}

impl Group {
    /// Serves one call; `None` when no answer comes.
    fn take(
        &mut self,
        at: usize,
        target: &Target,
        request: &Request,
    ) -> Result<Option<Reply>, CallError> {
        let Replica { member, mood, .. } = self.replicas[at].clone();
        if mood == Mood::Down {
            return Err(CallError::NotSent(format!("{}: connection refused", target.url)));
        }
        let stranger = target.group.is_some_and(|group| group != self.id)
            || target.node.is_some_and(|node| node != member.node);
        if stranger {
            return Err(CallError::NotSent(format!("{} is another", target.url)));
        }
        let clients = matches!(request, Request::Kv { .. } | Request::Scan { .. });
        if clients {
            self.replicas[at].asked += 1;
        }
        if mood == Mood::Hung || mood == Mood::Slow && clients {
            return Ok(None);
        }
        let leads = self.leader == Some(at);
        let not_leader = Error::NotLeader { leader: self.leader() };
        let reply = match request {
            Request::Identify => Reply::Identity(Box::new(self.identity(member))),
            Request::Status => Reply::Status(Box::new(self.status(member))),
            Request::Propose { .. } if !leads => Reply::Proposed(Err(not_leader)),
            Request::Propose { action, .. } => Reply::Proposed(Ok(self.apply(action))),
            Request::Kv { request, .. } => Reply::Kv(match request {
                KvRequest::Get { consistency: Consistency::Stale, key, .. } => self.get(key),
                _ if !leads => Err(not_leader),
                KvRequest::Get { key, .. } => self.get(key),
                KvRequest::Txn { .. } => panic!("no test asks so"),
                KvRequest::Write { write, once } => self.write_once(write, once.as_ref()),
            }),
            Request::Scan { scan, .. } if !leads && scan.consistency != Consistency::Stale => {
                Reply::Scanned(Err(not_leader))
            }
            Request::Scan { scan, .. } => Reply::Scanned(Ok(self.scan(scan))),
            other => panic!("a coordinator asks for {other:?}"),
        };
        let changes = match request {
            Request::Kv { request, .. } => request.is_write(),
            Request::Propose { .. } => true,
            _ => false,
        };
        if mood == Mood::Forgetful && changes {
            return Err(CallError::Lost(format!("{}: connection reset", target.url)));
        }
        Ok(Some(reply))
    }

    fn leader(&self) -> Option<Member> {
        self.leader.map(|leader| self.replicas[leader].member.clone())
    }

    fn identity(&self, member: Member) -> Identity {
        Identity {
            member,
            group: Some(self.id),
            name: Some(self.name.clone()),
            fresh: false,
            seeds: Vec::new(),
            members: self.replicas.iter().map(|replica| replica.member.clone()).collect(),
            leader: self.leader(),
            claim: self.claim.clone(),
            confirmed: self.confirmed,
        }
    }

    fn status(&self, member: Member) -> ShardStatus {
        let leader = self.leader();
        ShardStatus {
            node: member.node,
            url: member.url,
            group: Some(self.id),
            name: Some(self.name.clone()),
            role: Role::Follower,
            term: 1,
            leader: leader.as_ref().map(|leader| leader.node),
            leader_url: leader.map(|leader| leader.url),
            last_index: None,
            committed: None,
            applied: None,
            hash: StateHash(0),
            compared: None,
            differs: None,
            lag_ms: None,
            members: Vec::new(),
            quorum: 1,
            keys: self.map.len() as u64,
            bytes: 0,
            memory: 0,
            max_memory: None,
            disk_full: false,
            cluster: None,
            epoch: self.epoch(),
            wal_bytes: 0,
            snapshot_bytes: 0,
            snapshot_index: None,
            purged: None,
        }
    }

    fn epoch(&self) -> u64 {
        self.claim.as_ref().map_or(0, |claim| claim.topology.epoch)
    }

    fn check(&self, key: &Key) -> Result<(), Error> {
        match &self.claim {
            Some(claim) if !claim.owns(Token::of_key(key)) => {
                Err(Error::WrongShard { epoch: self.epoch() })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn at(&self) -> GroupIndex {
        GroupIndex { group: self.name.as_str().into(), index: self.index }
    }

    fn get(&self, key: &Key) -> Result<KvReply, Error> {
        self.check(key)?;
        let item = self.map.get(key).cloned();
        Ok(KvReply::Read(Read { at: self.at(), item, lag_ms: None }))
    }

    /// As a replica does.
    fn scan(&self, scan: &Scan) -> Part {
        let Span { from, to } = &scan.span;
        let bounds =
            |key: &&Key| key.as_bytes() >= from && to.as_ref().is_none_or(|to| key.as_bytes() < to);
        let keys = self.map.keys().filter(bounds);
        let found = match scan.want {
            Want::Count => Found::Count(keys.count() as u64),
            Want::Page { limit, bytes, reverse, keys_only } => {
                let listed = |key| Listed::of(key, &self.map[key], keys_only);
                let mut items: Vec<Listed> = keys.map(listed).collect();
                if reverse {
                    items.reverse();
                }
                Found::page(items.into_iter(), limit as usize, bytes as usize)
            }
        };
        Part { at: self.at(), epoch: self.epoch(), lag_ms: Some(0), found }
    }

    /// As `store::apply` does.
    fn write_once(&mut self, write: &KeyWrite, once: Option<&Once>) -> Result<KvReply, Error> {
        let Some(Once::Session(id)) = once else { return self.write(write) };
        if !self.sessions.contains(&id.session) {
            return Err(Error::NoSession);
        }
        match self.answers.get(&(id.session, id.slot)) {
            Some((seq, answer)) if *seq == id.seq => return Ok(answer.clone()),
            Some((seq, _)) if *seq > id.seq => return Err(Error::outcome_unknown("superseded")),
            Some(_) | None => {}
        }
        let answer = self.write(write)?;
        self.answers.insert((id.session, id.slot), (id.seq, answer.clone()));
        Ok(answer)
    }

    fn write(&mut self, write: &KeyWrite) -> Result<KvReply, Error> {
        let KeyWrite { key, condition, write } = write;
        assert_eq!(*condition, None, "no test writes so");
        self.check(key)?;
        self.index += 1;
        let version = self.map.get(key).map_or(0, |item| item.version) + 1;
        let existed = match write {
            Write::Put { value } => {
                let item = Item { value: value.clone(), ts: 0, version, expires: Expiry::NEVER };
                self.map.insert(key.clone(), item).is_some()
            }
            Write::Delete => self.map.remove(key).is_some(),
            Write::PutFor { .. } | Write::Touch { .. } | Write::Add { .. } => {
                panic!("no test writes so")
            }
        };
        let (at, expires) = (self.at(), None);
        let written =
            Written { at, ts: 0, version, existed, expires, value: None, acks: 1, quorum: 1 };
        Ok(KvReply::Written(written))
    }

    /// Carries out a change of the group's claim, as `store::apply` does.
    pub(super) fn apply(&mut self, action: &Action) -> Outcome {
        let held = |cluster| match &self.claim {
            Some(claim) if claim.topology.cluster == cluster => Ok(()),
            Some(claim) => Err(Refusal::OtherCluster {
                cluster: claim.topology.cluster,
                epoch: claim.topology.epoch,
            }),
            None => Err(Refusal::NotClaimed),
        };
        let done = match action {
            Action::Claim(claim) => match held(claim.topology.cluster) {
                Err(refusal @ Refusal::OtherCluster { .. }) => Err(refusal),
                Ok(()) if self.claim.as_ref() == Some(&**claim) => Ok(()),
                Ok(()) if claim.topology.epoch <= self.epoch() => {
                    Err(Refusal::OldEpoch { epoch: self.epoch() })
                }
                Ok(()) | Err(_) => {
                    let foreign = |key: &&Key| !claim.owns(Token::of_key(key));
                    match self.map.keys().filter(foreign).count() {
                        0 => {
                            self.claim = Some((**claim).clone());
                            Ok(())
                        }
                        keys => Err(Refusal::ForeignKeys { keys: keys as u64 }),
                    }
                }
            },
            Action::Confirm { cluster } => held(*cluster).map(|()| self.confirmed = true),
            Action::Release { cluster } => held(*cluster).and_then(|()| {
                if self.confirmed {
                    return Err(Refusal::Confirmed);
                }
                self.claim = None;
                Ok(())
            }),
            Action::OpenSession { session } => {
                self.sessions.insert(*session);
                Ok(())
            }
            Action::DeleteSpan { span, limit, once } => {
                return self.delete_span(span, *limit as usize, once.expect("it has a name"));
            }
            Action::Found { .. }
            | Action::Put { .. }
            | Action::Delete { .. }
            | Action::Conditional { .. }
            | Action::Once { .. }
            | Action::Write(_)
            | Action::Txn { .. }
            | Action::Expire => {
                panic!("not a change of the ring: {action:?}")
            }
        };
        done.map_or_else(Outcome::Refused, |()| Outcome::Done)
    }

    /// A few at a time, so that there are steps.
    fn delete_span(&mut self, span: &Span, limit: usize, id: WriteId) -> Outcome {
        if !self.sessions.contains(&id.session) {
            return Outcome::NoSession;
        }
        let slot = (id.session, id.slot);
        if let Some((seq, outcome)) = self.deletions.get(&slot)
            && *seq == id.seq
        {
            return outcome.clone();
        }
        let inside = |key: &&Key| {
            *span.from <= *key.as_bytes() && span.to.as_ref().is_none_or(|to| key.as_bytes() < to)
        };
        let inside: Vec<Key> = self.map.keys().filter(inside).cloned().collect();
        let doomed = &inside[..inside.len().min(limit).min(3)];
        for key in doomed {
            self.map.remove(key);
        }
        self.index += 1;
        let (keys, more) = (doomed.len(), inside.len() > doomed.len());
        let keys = u32::try_from(keys).expect("few");
        let outcome = Outcome::Deleted { index: self.index, keys, more };
        self.deletions.insert(slot, (id.seq, outcome.clone()));
        outcome
    }
}
