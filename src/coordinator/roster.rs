//! Whom one group consists of and who leads it, as far as a coordinator has heard.
//!
//! All of it is a guess that saves time: a wrong guess costs one more attempt, never correctness,
//! since each replica knows for itself whether it leads and what it owns. Shared between requests,
//! which report what they met, and the keeper, which asks around.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::coordinator::claiming::Seen;
use crate::coordinator::routing::{Candidates, Contact, Heard, Need};
use crate::coordinator::session::Session;
use crate::rpc::{CallError, Target};
use crate::types::error::Error;
use crate::types::ids::GroupId;
use crate::types::topology::Group;

/// What is known of one group.
#[derive(Debug)]
pub(in crate::coordinator) struct Roster {
    id: GroupId,
    name: Arc<str>,
    known: Mutex<Known>,
    /// Which member a stale read asks first.
    turn: AtomicUsize,
    /// Something was met that does not fit: ask all members.
    doubtful: AtomicBool,
    /// Wakes whoever waits for another leader.
    led: Notify,
    session: Session,
}

#[derive(Debug)]
struct Known {
    leader: Option<Contact>,
    members: Vec<Standing>,
}

#[derive(Clone, Debug)]
struct Standing {
    contact: Contact,
    /// Whether it gave no answer the last time.
    silent: bool,
}

impl Roster {
    /// What a topology says of `group`.
    pub(in crate::coordinator) fn new(group: &Group) -> Self {
        let member = |url: &String| Standing {
            contact: Contact { url: url.as_str().into(), node: None },
            silent: false,
        };
        let members = group.urls.iter().map(member).collect();
        Self {
            id: group.id,
            name: group.name.as_str().into(),
            known: Mutex::new(Known { leader: None, members }),
            turn: AtomicUsize::new(0),
            doubtful: AtomicBool::new(true),
            led: Notify::new(),
            session: Session::default(),
        }
    }

    /// The group's identity.
    pub(in crate::coordinator) fn id(&self) -> GroupId {
        self.id
    }

    /// The group's name.
    pub(in crate::coordinator) fn name(&self) -> &str {
        &self.name
    }

    /// This coordinator's session with the group.
    pub(in crate::coordinator) fn session(&self) -> &Session {
        &self.session
    }

    /// How to reach `contact` as a member of this group and nothing else.
    pub(in crate::coordinator) fn target(&self, contact: &Contact) -> Target {
        Target { url: contact.url.to_string(), node: contact.node, group: Some(self.id) }
    }

    /// Whoever is thought to lead.
    pub(in crate::coordinator) fn leader(&self) -> Option<Contact> {
        self.lock().leader.clone()
    }

    /// Waits until another than `contact` is thought to lead.
    pub(in crate::coordinator) async fn led_by_another(&self, contact: &Contact) {
        loop {
            // Before the look: a change right after it wakes this one too.
            let changed = self.led.notified();
            if self.lock().leader.as_ref().is_some_and(|leader| leader.url != contact.url) {
                return;
            }
            changed.await;
        }
    }

    /// All members, by URL.
    pub(in crate::coordinator) fn members(&self) -> Vec<Contact> {
        self.lock().members.iter().map(|member| member.contact.clone()).collect()
    }

    /// Whom to ask for `need`.
    pub(in crate::coordinator) fn candidates(&self, need: Need) -> Candidates {
        let known = self.lock();
        let mut members = known.members.clone();
        match need {
            Need::Write | Need::NamedWrite | Need::LeaderRead => {}
            Need::AnyRead => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let count = members.len().max(1);
                members.rotate_left(turn % count);
            }
        }
        // One that is paused or cut off takes a whole connection attempt to say nothing. The others
        // name it when it leads, and the keeper hears when it answers again.
        if members.iter().any(|member| !member.silent) {
            members.retain(|member| !member.silent);
        }
        Candidates {
            group: Arc::clone(&self.name),
            leader: known.leader.clone(),
            members: members.into_iter().map(|member| member.contact).collect(),
        }
    }

    /// Takes over what the members say themselves.
    pub(in crate::coordinator) fn learn(&self, seen: &Seen) {
        let mut known = self.lock();
        let silent = |url: &str| {
            known.members.iter().any(|member| *member.contact.url == *url && member.silent)
        };
        let members = seen
            .members
            .iter()
            .cloned()
            .map(|member| Standing { silent: silent(&member.url), contact: member.into() });
        let members = members.collect();
        known.members = members;
        known.leader = seen.leader.clone().map(Contact::from);
        self.doubtful.store(known.leader.is_none(), Ordering::Relaxed);
        self.led.notify_waiters();
    }

    /// Takes note that no member answers.
    pub(in crate::coordinator) fn forget_leader(&self) {
        self.lock().leader = None;
        self.doubt();
    }

    /// Takes note of whether the member at `url` said who it is.
    pub(in crate::coordinator) fn note(&self, url: &str, silent: bool) {
        let mut known = self.lock();
        let mut members = known.members.iter_mut();
        if let Some(member) = members.find(|member| *member.contact.url == *url) {
            member.silent = silent;
        }
    }

    /// Takes note of what a request for `need` met at `contact`. Returns whether the group should
    /// be asked around.
    pub(in crate::coordinator) fn observe<T>(
        &self,
        need: Need,
        contact: &Contact,
        heard: &Heard<T>,
    ) -> bool {
        let (silent, leads) = match heard {
            Heard::Answer(Ok(_)) => match need {
                Need::Write | Need::NamedWrite | Need::LeaderRead => (false, Some(true)),
                Need::AnyRead => (false, None),
            },
            Heard::Answer(Err(Error::NotLeader { .. })) => (false, Some(false)),
            // The latter: our own queue is full, which says nothing about the member.
            Heard::Answer(Err(_)) | Heard::NoAnswer(CallError::Overloaded(_)) => (false, None),
            // It is there, and nobody could answer in its place.
            Heard::NoAnswer(CallError::Late(_)) if need != Need::AnyRead => (false, None),
            Heard::NoAnswer(_) | Heard::Nonsense(_) => (true, Some(false)),
        };
        self.note(&contact.url, silent);
        let mut known = self.lock();
        let led = known.leader.as_ref().is_some_and(|leader| leader.url == contact.url);
        match leads {
            Some(true) if !led => {
                known.leader = Some(contact.clone());
                self.led.notify_waiters();
            }
            Some(false) if led => {
                known.leader = match heard {
                    Heard::Answer(Err(Error::NotLeader { leader })) => {
                        leader.clone().map(Contact::from)
                    }
                    Heard::Answer(_) | Heard::NoAnswer(_) | Heard::Nonsense(_) => None,
                };
                self.led.notify_waiters();
            }
            Some(_) | None => {}
        }
        let doubtful = known.leader.is_none();
        if doubtful {
            self.doubt();
        }
        doubtful
    }

    /// Lets the keeper ask all members.
    pub(in crate::coordinator) fn doubt(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    /// Whether all members should be asked.
    pub(in crate::coordinator) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_member_is_asked_only_when_all_are() {
        let urls = ["http://a", "http://b"].map(String::from).to_vec();
        let roster = Roster::new(&Group { id: GroupId(1), name: "g".into(), urls });
        let asked = |need| {
            let members = roster.candidates(need).members.into_iter();
            let mut urls: Vec<String> = members.map(|member| member.url.to_string()).collect();
            urls.sort();
            urls
        };
        roster.note("http://a", true);
        for need in [Need::Write, Need::NamedWrite, Need::LeaderRead, Need::AnyRead] {
            assert_eq!(asked(need), ["http://b"]);
        }
        roster.note("http://b", true);
        assert_eq!(asked(Need::Write), ["http://a", "http://b"]);
        roster.note("http://a", false);
        assert_eq!(asked(Need::Write), ["http://a"]);
    }
}
