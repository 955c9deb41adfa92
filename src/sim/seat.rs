//! A newcomer whose seat did not last, by script: its leader is played by the test. The seed that
//! found this is another run after every change; the script stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::rpc::{self, Caller, Dialer, FrameReceiver, FrameSender, Service, Target};
use crate::sim::machine::{Machine, Steps};
use crate::sim::net::{self, Net, Place};
use crate::sim::node::{Node, Role};
use crate::types::deadline::Deadline;
use crate::types::ids::{GroupId, Index, LogId, NodeId, Term, Vote};
use crate::types::log::{Entry, Membership, Payload};
use crate::types::peer::{Append, AppendReply, Hello, Identity, Reply, Request};
use crate::types::topology::Member;

const NEWCOMER: Place = 0;
const LEADER: Place = 1;
const GROUP: GroupId = GroupId(7);
const ME: NodeId = NodeId(9);
/// Far longer than a replica waits before it asks again, in milliseconds.
const PATIENCE_MS: u64 = 3000;

/// A leader that takes note of who asks for a seat.
#[derive(Default)]
struct Leader {
    asked: Mutex<Option<Member>>,
}

fn me() -> Member {
    Member { node: ME, url: net::url(LEADER) }
}

impl Service for Leader {
    fn welcome(&self, _hello: &Hello) -> Result<(), String> {
        Ok(())
    }

    async fn call(&self, _from: Option<NodeId>, request: Request) -> Reply {
        match request {
            Request::Identify => Reply::Identity(Box::new(Identity {
                member: me(),
                group: Some(GROUP),
                name: Some("g".into()),
                fresh: false,
                seeds: Vec::new(),
                members: vec![me()],
                leader: Some(me()),
                claim: None,
                confirmed: false,
            })),
            Request::Join(newcomer) => {
                *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(newcomer);
                Reply::Accepted(Ok(()))
            }
            _ => Reply::NotReady("it only takes in".into()),
        }
    }

    async fn stream(&self, _hello: Hello, _sender: FrameSender, _receiver: FrameReceiver) {}
}

struct World {
    now: u64,
    net: Net,
    node: Node,
    steps: Steps,
    leader: Arc<Leader>,
}

impl World {
    fn new() -> Self {
        let net = Net::new(1);
        let role = Role::Replica { group: 0, peers: vec![net::url(LEADER)] };
        let mut node = Node::new(&net, NEWCOMER, role, 2);
        node.start();
        net.listen(LEADER, Arc::default());
        let (steps, leader) = (Steps::new(&Machine::new(3)), Arc::<Leader>::default());
        let (ears, service) = (net.clone(), Arc::clone(&leader));
        steps.spawn(async move {
            loop {
                let io = ears.accept(LEADER).await;
                tokio::spawn(rpc::serve(io, Arc::clone(&service), CancellationToken::new()));
            }
        });
        Self { now: 0, net, node, steps, leader }
    }

    /// Lets time go by until there is what `look` finds; at most [`PATIENCE_MS`].
    fn until<T>(&mut self, look: impl Fn(&Self) -> Option<T>) -> Option<T> {
        for _ in 0..PATIENCE_MS {
            self.now += 1;
            self.net.advance(self.now);
            assert_eq!(self.node.step(), None, "it goes on");
            self.steps.step(1.0);
            if let Some(found) = look(self) {
                return Some(found);
            }
        }
        None
    }

    /// Who asks for a seat from now on.
    fn asks(&mut self) -> Option<Member> {
        let asked =
            |world: &Self| world.leader.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
        asked(self);
        self.until(asked)
    }

    /// Has the leader of `term` send entries to `newcomer`.
    fn append(&mut self, term: Term, newcomer: &Member, entries: Vec<Entry>) {
        let prev = entries[0].id.index.checked_sub(1).map(|index| id(1, index));
        let vote = Vote { term, node: ME, committed: true };
        let append = Append { vote, prev, entries, committed: None, as_of: None, lease_ms: None };
        let connect = Arc::new(net::From { net: self.net.clone(), place: LEADER });
        let target =
            Target { url: newcomer.url.clone(), node: Some(newcomer.node), group: Some(GROUP) };
        let answer = Arc::<Mutex<Option<Reply>>>::default();
        let answered = Arc::clone(&answer);
        self.steps.spawn(async move {
            let caller = Caller::new(Dialer::over(connect, None).of(Some(ME)), target);
            let deadline = Deadline::after(Duration::from_millis(PATIENCE_MS));
            let reply = caller.call(&Request::Append(append), deadline).await;
            *answered.lock().unwrap_or_else(PoisonError::into_inner) = reply.ok();
        });
        let reply = self.until(|_| answer.lock().unwrap_or_else(PoisonError::into_inner).take());
        let took = matches!(reply, Some(Reply::Append(AppendReply::Success { .. })));
        assert!(took, "it takes the entries: {reply:?}");
    }
}

fn id(term: Term, index: Index) -> LogId {
    LogId { term, leader: ME, index }
}

fn membership(term: Term, index: Index, voters: &[&Member], learners: &[&Member]) -> Entry {
    let members = voters.iter().chain(learners);
    let membership = Membership {
        voters: vec![voters.iter().map(|voter| voter.node).collect::<BTreeSet<_>>()],
        urls: members.map(|of| (of.node, of.url.clone())).collect::<BTreeMap<_, _>>(),
    };
    Entry { id: id(term, index), payload: Payload::Membership(membership) }
}

#[test]
fn a_newcomer_asks_again_for_a_seat_that_did_not_last() {
    let (mut world, leader) = (World::new(), me());
    let newcomer = world.asks().expect("it is new and asks for a seat");
    world.append(1, &newcomer, vec![membership(1, 0, &[&leader], &[&newcomer])]);
    assert_eq!(world.asks(), Some(newcomer.clone()), "a learner asks on");
    world.append(1, &newcomer, vec![membership(1, 1, &[&leader, &newcomer], &[])]);
    assert_eq!(world.asks(), None, "a voter has its seat");
    // That was never committed, and the next leader does not have it.
    world.append(2, &newcomer, vec![membership(2, 1, &[&leader], &[&newcomer])]);
    assert_eq!(world.asks(), Some(newcomer), "it asks again");
}
