//! Routing as scripts: each line is what the last member asked came to, and what follows from it.

use super::*;
use crate::types::error::{Decline, Space};
use crate::types::kv::GroupIndex;
use crate::types::limits::REQUEST_TIMEOUT_DEFAULT;

/// A request on its way to a group of `a`, `b` and `c`; time passes only by pauses.
struct Script {
    need: Need,
    route: Route,
    candidates: Candidates,
    left: Duration,
}

fn contact(url: &str) -> Contact {
    Contact { url: url.into(), node: None }
}

fn member(url: &str) -> Member {
    Member { node: NodeId(7), url: url.into() }
}

fn no_leader() -> Heard<&'static str> {
    Heard::Answer(Err(Error::NotLeader { leader: None }))
}

fn leader_is(url: &str) -> Heard<&'static str> {
    Heard::Answer(Err(Error::NotLeader { leader: Some(member(url)) }))
}

fn unavailable() -> Heard<&'static str> {
    Heard::Answer(Err(Error::unavailable("no quorum")))
}

fn unknown() -> Heard<&'static str> {
    Heard::Answer(Err(Error::outcome_unknown("replica: lost")))
}

fn not_sent() -> Heard<&'static str> {
    Heard::NoAnswer(CallError::NotSent("refused".into()))
}

fn lost() -> Heard<&'static str> {
    Heard::NoAnswer(CallError::Lost("broken".into()))
}

fn overloaded() -> Heard<&'static str> {
    Heard::NoAnswer(CallError::Overloaded("http://a".into()))
}

impl Script {
    fn new(need: Need, leader: Option<&str>) -> Self {
        let candidates = Candidates {
            group: "g".into(),
            leader: leader.map(contact),
            members: ["a", "b", "c"].map(contact).to_vec(),
        };
        Self { need, route: Route::new(need), candidates, left: REQUEST_TIMEOUT_DEFAULT }
    }

    fn after(&mut self, heard: Option<Heard<&'static str>>) -> String {
        match self.route.next(heard, || self.candidates.clone(), self.left) {
            Step::Ask(contact, _) => format!("ask {}", contact.url),
            Step::Wait(pause) => {
                self.left -= pause;
                format!("wait {}", pause.as_millis())
            }
            Step::Rehash(epoch, pause) => {
                self.left -= pause;
                format!("rehash {epoch} {}", pause.as_millis())
            }
            Step::Done(Ok(reply)) => format!("ok {reply}"),
            Step::Done(Err(error)) => format!("{}: {error}", error.code()),
        }
    }

    fn run(mut self, script: Vec<(Option<Heard<&'static str>>, &str)>) -> Self {
        for (at, (heard, expected)) in script.into_iter().enumerate() {
            let shown = format!("{heard:?}");
            assert_eq!(self.after(heard), expected, "line {at}, after {shown}, {:?}", self.need);
        }
        self
    }
}

#[test]
fn the_leader_is_asked_and_its_answer_is_final() {
    let reply = || Some(Heard::Answer(Ok("done")));
    for need in [Need::Write, Need::LeaderRead] {
        Script::new(need, Some("b")).run(vec![(None, "ask b"), (reply(), "ok done")]);
    }
    Script::new(Need::AnyRead, Some("b")).run(vec![(None, "ask a"), (reply(), "ok done")]);
}

#[test]
fn a_named_leader_is_asked_at_once_and_nobody_twice_between_pauses() {
    Script::new(Need::Write, Some("b")).run(vec![
        (None, "ask b"),
        (Some(leader_is("c")), "ask c"),
        (Some(leader_is("b")), "ask a"),
        (Some(no_leader()), "wait 10"),
        (None, "ask b"),
        (Some(leader_is("d")), "ask d"),
        (Some(Heard::Answer(Ok("by a new member"))), "ok by a new member"),
    ]);
}

#[test]
fn what_was_certainly_not_applied_is_tried_elsewhere_with_growing_pauses() {
    for need in [Need::Write, Need::LeaderRead] {
        Script::new(need, Some("a")).run(vec![
            (None, "ask a"),
            (Some(not_sent()), "ask b"),
            (Some(unavailable()), "ask c"),
            (Some(unavailable()), "wait 10"),
            (None, "ask a"),
            (Some(not_sent()), "ask b"),
            (Some(leader_is("a")), "ask c"),
            (Some(no_leader()), "wait 20"),
            (None, "ask a"),
        ]);
    }
}

#[test]
fn overload_ends_a_request_at_once() {
    for need in [Need::Write, Need::LeaderRead] {
        let mut script = Script::new(need, Some("a"));
        script.after(None);
        assert!(script.after(Some(overloaded())).starts_with("overloaded: "));
    }
}

#[test]
fn a_leader_without_room_is_final() {
    for space in [Space::Memory { max: 1 << 20 }, Space::Disk] {
        let full = Error::NoRoom(space);
        let mut script = Script::new(Need::Write, Some("a"));
        script.after(None);
        let expected = format!("{}: {full}", full.code());
        assert_eq!(script.after(Some(Heard::Answer(Err(full)))), expected);
    }
}

#[test]
fn a_write_of_unknown_fate_without_a_name_is_never_sent_again() {
    for fate in [lost(), unknown(), Heard::Nonsense("what?".into())] {
        let mut script = Script::new(Need::Write, Some("a"));
        script.after(None);
        let end = script.after(Some(fate));
        assert!(end.starts_with("outcome_unknown: the outcome of the write is unknown"), "{end}");
    }
}

#[test]
fn a_named_write_of_unknown_fate_is_sent_again_until_the_group_has_answered() {
    let at = GroupIndex { group: "g".into(), index: 7 };
    let mismatch = Error::Declined { why: Decline::VersionMismatch { version: Some(3) }, at };
    let answers = [
        (Heard::Answer(Ok("done")), "ok done"),
        (Heard::Answer(Err(mismatch)), "version_mismatch: version mismatch"),
    ];
    for (answer, expected) in answers {
        Script::new(Need::NamedWrite, Some("a")).run(vec![
            (None, "ask a"),
            (Some(lost()), "ask b"),
            (Some(leader_is("c")), "ask c"),
            (Some(Heard::Nonsense("what?".into())), "wait 10"),
            (None, "ask a"),
            (Some(unknown()), "ask b"),
            (Some(answer), expected),
        ]);
    }
}

#[test]
fn after_a_lost_answer_no_refusal_says_that_a_write_was_not_applied() {
    let refusals = [
        Error::Overloaded { queue: "q".into() },
        Error::NoRoom(Space::Disk),
        Error::unavailable("no quorum"),
        Error::NotLeader { leader: None },
        Error::NoSession,
        Error::WrongShard { epoch: 5 },
    ];
    for refusal in refusals {
        let mut script = Script::new(Need::NamedWrite, Some("a"));
        script.after(None);
        script.after(Some(lost()));
        let (end, _) = exhaust(script, &Heard::Answer(Err(refusal.clone())));
        assert_eq!(
            end, "outcome_unknown: the outcome of the write is unknown: broken",
            "{refusal}"
        );
    }
    let mut script = Script::new(Need::NamedWrite, Some("a"));
    script.after(None);
    script.after(Some(lost()));
    let (end, _) = exhaust(script, &overloaded());
    assert!(end.starts_with("outcome_unknown: "), "{end}");
}

#[test]
fn a_named_write_that_was_refused_before_anything_was_lost_is_not_applied() {
    let mut script = Script::new(Need::NamedWrite, Some("a"));
    script.after(None);
    assert_eq!(
        script.after(Some(Heard::Answer(Err(Error::NoSession)))),
        "unavailable: the session is not open"
    );
    let ends = |heard| exhaust(Script::new(Need::NamedWrite, None), &heard).0;
    assert_eq!(ends(no_leader()), "unavailable: group g has no leader");
    assert!(ends(overloaded()).starts_with("overloaded: "));
}

#[test]
fn a_read_of_unknown_fate_is_asked_again() {
    for need in [Need::LeaderRead, Need::AnyRead] {
        Script::new(need, Some("a")).run(vec![
            (None, "ask a"),
            (Some(lost()), "ask b"),
            (Some(unknown()), "ask c"),
            (Some(Heard::Nonsense("what?".into())), "wait 10"),
            (None, "ask a"),
        ]);
    }
}

#[test]
fn a_wrong_shard_means_a_newer_ring_and_then_another_try() {
    let wrong = || Some(Heard::Answer(Err(Error::WrongShard { epoch: 5 })));
    Script::new(Need::Write, Some("a")).run(vec![
        (None, "ask a"),
        (wrong(), "rehash 5 10"),
        (None, "ask a"),
        (wrong(), "rehash 5 20"),
        (None, "ask a"),
        (Some(Heard::Answer(Ok("found"))), "ok found"),
    ]);
}

#[test]
fn a_mistake_of_the_client_is_not_tried_again() {
    let mistakes = [
        Error::MissingKey,
        Error::InvalidJson("x".into()),
        Error::BadRequest("x".into()),
        Error::KeyTooLarge { bytes: 1 },
        Error::ValueTooLarge { max: 1 },
    ];
    for error in mistakes {
        let mut route = Route::new(Need::Write);
        let candidates = Script::new(Need::Write, Some("a")).candidates;
        let heard: Heard<()> = Heard::Answer(Err(error.clone()));
        let step = route.next(Some(heard), || candidates.clone(), Duration::from_secs(1));
        assert_eq!(step, Step::Done(Err(error)));
    }
}

/// Runs until it ends while every attempt comes to `heard`; returns the end and how often a member
/// was asked.
fn exhaust(mut script: Script, heard: &Heard<&'static str>) -> (String, u32) {
    let (mut asked, mut last) = (0, None);
    for _ in 0..10_000 {
        let step = script.after(last.take());
        if step.starts_with("ask") {
            asked += 1;
            last = Some(heard.clone());
        } else if !step.starts_with("wait") && !step.starts_with("rehash") {
            return (step, asked);
        }
    }
    panic!("it never ends");
}

#[test]
fn without_a_leader_it_ends_with_the_last_reason_as_not_applied() {
    let ends = |heard: &Heard<&'static str>| exhaust(Script::new(Need::Write, None), heard).0;
    assert_eq!(ends(&no_leader()), "unavailable: group g has no leader");
    assert_eq!(ends(&unavailable()), "unavailable: group g: no quorum");
    assert_eq!(ends(&not_sent()), "unavailable: group g: refused");
    assert!(ends(&overloaded()).starts_with("overloaded: "));
    let wrong = Heard::Answer(Err(Error::WrongShard { epoch: 5 }));
    assert_eq!(ends(&wrong), "unavailable: group g: it does not own the key");
}

#[test]
fn retries_are_bounded_by_the_pauses() {
    let (_, asked) = exhaust(Script::new(Need::Write, None), &no_leader());
    // 5 s with pauses that grow to 200 ms: about 28 rounds of three.
    assert!((60..120).contains(&asked), "{asked}");
}

#[test]
fn no_attempt_starts_after_the_deadline() {
    let mut route = Route::new(Need::Write);
    let candidates = Script::new(Need::Write, Some("a")).candidates;
    let step: Step<()> = route.next(None, || candidates, Duration::ZERO);
    assert!(matches!(step, Step::Done(Err(Error::Unavailable { .. }))), "{step:?}");
}

#[test]
fn a_group_without_members_ends_as_unavailable() {
    let mut script = Script::new(Need::AnyRead, None);
    script.candidates.members.clear();
    assert_eq!(exhaust(script, &lost()), ("unavailable: group g has no leader".into(), 0));
}

#[test]
fn what_any_member_can_answer_leaves_time_for_another_and_the_rest_takes_it_all() {
    let candidates = Script::new(Need::Write, Some("a")).candidates;
    let time = |need, left_ms| {
        let left = Duration::from_millis(left_ms);
        match Route::new(need).next::<()>(None, || candidates.clone(), left) {
            Step::Ask(_, within) => u64::try_from(within.as_millis()).expect("small"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(time(Need::Write, 3000), 3000);
    assert_eq!(time(Need::NamedWrite, 5000), 5000);
    assert_eq!(time(Need::LeaderRead, 3000), 3000);
    assert_eq!(time(Need::AnyRead, 3000), 1000);
    assert_eq!(time(Need::AnyRead, 150), 100);
    assert_eq!(time(Need::AnyRead, 60), 60);
}
