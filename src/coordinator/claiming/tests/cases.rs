//! Single decisions, each from a view that is written down as a few words.

use crate::coordinator::claiming::{Plan, Proposal, Refused, Step, Verdict, View, judge, next};
use crate::coordinator::topology;
use crate::types::command::{Action, Outcome, Refusal};
use crate::types::ids::{ClusterId, GroupId, NodeId};
use crate::types::peer::Identity;
use crate::types::topology::{Claim, Epoch, Group, Member, Topology};

const UNUSED: ClusterId = ClusterId(99);

fn member(group: u64, replica: u64) -> Member {
    Member { node: NodeId(10 * group + replica), url: format!("http://g{group}r{replica}") }
}

/// Replica `replica` of group `group`, which has two and is led by the first.
fn identity(group: u64, replica: u64) -> Identity {
    Identity {
        member: member(group, replica),
        group: Some(GroupId(group)),
        name: Some(format!("g{group}")),
        fresh: false,
        seeds: Vec::new(),
        members: vec![member(group, 1), member(group, 2)],
        leader: Some(member(group, 1)),
        claim: None,
        confirmed: false,
    }
}

fn ring(cluster: u64, epoch: Epoch, groups: &[u64]) -> Topology {
    let group = |&group: &u64| Group {
        id: GroupId(group),
        name: format!("g{group}"),
        urls: vec![member(group, 1).url, member(group, 2).url],
    };
    let groups = groups.iter().map(group).collect();
    Topology { cluster: ClusterId(cluster), epoch, vnodes: 2, groups }
}

fn claimed(identity: Identity, topology: &Topology, confirmed: bool) -> Identity {
    let id = identity.group.expect("a group");
    let (_, claim) =
        topology::claims(topology).find(|(group, _)| group.id == id).expect("in the ring");
    Identity { claim: Some(claim), confirmed, ..identity }
}

/// A view of the answers given; every given URL is that of an answer.
fn view(answers: impl IntoIterator<Item = Identity>) -> View {
    let answers: Vec<Identity> = answers.into_iter().collect();
    View {
        given: answers.iter().map(|answer| answer.member.url.clone()).collect(),
        vnodes: 2,
        answers: answers.into_iter().map(|a| (a.member.url.clone(), Ok(a))).collect(),
        unused: UNUSED,
        ..View::default()
    }
}

fn down(mut view: View, url: &str) -> View {
    view.given.push(url.into());
    view.answers.insert(url.into(), Err("connection refused".into()));
    view
}

fn show(step: &Step) -> String {
    match step {
        Step::Wait(reason) => format!("wait: {reason}"),
        Step::Refuse(reason) => format!("refuse: {reason}"),
        Step::Doubt(cluster) => format!("doubt {}", cluster.0),
        Step::Adopt(topology) => format!("adopt {} at {}", topology.cluster.0, topology.epoch),
        Step::Rest => "rest".into(),
        Step::Propose(Plan { purpose, cluster, proposals }) => {
            let shown: Vec<String> = proposals.iter().map(show_proposal).collect();
            format!("{purpose:?} {}: {}", cluster.0, shown.join(", ")).to_lowercase()
        }
    }
}

fn show_proposal(proposal: &Proposal) -> String {
    let action = match &proposal.action {
        Action::Claim(_) => "claim",
        Action::Confirm { .. } => "confirm",
        Action::Release { .. } => "release",
        Action::Found { .. }
        | Action::Put { .. }
        | Action::Delete { .. }
        | Action::Conditional { .. }
        | Action::OpenSession { .. }
        | Action::Once { .. }
        | Action::DeleteSpan { .. }
        | Action::Write(_)
        | Action::Txn { .. }
        | Action::Expire => "?",
    };
    format!("{action} {}", proposal.group.name)
}

#[track_caller]
fn decides(view: &View, expected: &str) {
    let shown = show(&next(view));
    assert!(shown.starts_with(expected), "{shown:?} is not {expected:?}");
}

#[test]
fn fresh_groups_are_claimed_home_first_and_confirmed_home_first() {
    let begin = "begin 99: claim g1, claim g2, confirm g1, confirm g2";
    decides(&view([identity(2, 1), identity(1, 1)]), begin);
    // Several URLs of one group, in any order, are one group.
    decides(&view([identity(2, 2), identity(1, 2), identity(2, 1), identity(1, 1)]), begin);
}

#[test]
fn the_claims_hold_the_whole_topology_and_share_the_ring() {
    let Step::Propose(plan) = next(&view([identity(1, 1), identity(2, 1)])) else { panic!() };
    let claims: Vec<&Claim> = plan
        .proposals
        .iter()
        .filter_map(|proposal| match &proposal.action {
            Action::Claim(claim) => Some(&**claim),
            Action::Confirm { .. }
            | Action::Release { .. }
            | Action::Found { .. }
            | Action::Put { .. }
            | Action::Delete { .. }
            | Action::Conditional { .. }
            | Action::OpenSession { .. }
            | Action::Once { .. }
            | Action::DeleteSpan { .. }
            | Action::Write(_)
            | Action::Txn { .. }
            | Action::Expire => None,
        })
        .collect();
    let expected = Topology { cluster: UNUSED, ..ring(99, 1, &[1, 2]) };
    assert!(claims.iter().all(|claim| claim.topology == expected), "{claims:?}");
    let width: u128 = claims.iter().flat_map(|claim| &claim.owned).map(|r| r.width()).sum();
    assert_eq!(width, 1 << 64);
}

#[test]
fn a_ring_is_begun_only_when_every_url_is_known_and_every_group_is_founded() {
    let both = || view([identity(1, 1), identity(2, 1)]);
    decides(&down(both(), "http://x"), "wait: http://x does not answer: connection refused");
    // A member that is down, of a group that answers, is known.
    decides(&down(both(), "http://g2r2"), "begin 99");
    let leaderless = Identity { leader: None, ..identity(2, 1) };
    decides(&view([identity(1, 1), leaderless]), "wait: group g2 has no name or no leader yet");
    let forming = Identity { group: None, fresh: true, ..identity(2, 1) };
    decides(&view([identity(1, 1), forming]), "wait: http://g2r1: its group has not formed yet");
    let nameless = Identity { name: None, ..identity(2, 1) };
    decides(&view([identity(1, 1), nameless]), "wait: group g0000000000000002 has no name");
    let mut silent = both();
    silent.given.push("http://y".into());
    decides(&silent, "wait: http://y has not answered yet");
    decides(&View::default(), "refuse: no shards are given; use --shards");
}

#[test]
fn only_given_groups_become_a_ring() {
    let mut view = view([identity(1, 1), identity(2, 1), identity(3, 1)]);
    view.given.retain(|url| !url.starts_with("http://g3"));
    decides(&view, "begin 99: claim g1, claim g2, confirm g1, confirm g2");
}

#[test]
fn what_can_never_be_a_ring_is_refused_with_a_sentence() {
    let twin = Identity { name: Some("g1".into()), ..identity(2, 1) };
    decides(&view([identity(1, 1), twin]), "refuse: two groups are called g1");
    let mut many = view([identity(1, 1)]);
    many.vnodes = 0;
    decides(&many, "refuse: 0 vnodes: use --vnodes 1 to 4096");
    let one = claimed(identity(1, 1), &ring(7, 1, &[1]), true);
    let two = claimed(identity(2, 1), &ring(8, 1, &[2]), true);
    decides(&view([one, two]), "refuse: the shards belong to more than one ring");
    let mut broken = ring(7, 1, &[1]);
    broken.vnodes = 0;
    let claim = Claim { topology: broken, owned: Vec::new() };
    let broken = Identity { claim: Some(claim), confirmed: true, ..identity(1, 1) };
    decides(&view([broken]), "refuse: the claim of group g1 makes no ring");
}

#[test]
fn an_active_ring_is_adopted_by_any_confirmed_copy() {
    let ring = ring(7, 1, &[1, 2]);
    let home_down = view([claimed(identity(2, 1), &ring, true)]);
    decides(&down(home_down, "http://g1r1"), "adopt 7 at 1");
    // Strangers and other --vnodes don't matter.
    let mut with_stranger = view([claimed(identity(1, 1), &ring, true), identity(3, 1)]);
    with_stranger.vnodes = 5;
    decides(&with_stranger, "adopt 7 at 1");
}

#[test]
fn the_greatest_epoch_of_a_ring_counts() {
    let (old, new) = (ring(7, 1, &[1, 2]), ring(7, 2, &[1, 2, 3]));
    let answers = || [claimed(identity(1, 1), &new, true), claimed(identity(2, 1), &old, true)];
    decides(&view(answers()), "adopt 7 at 2");
    let mut serving = view(answers());
    serving.adopted = Some(old);
    decides(&serving, "adopt 7 at 2");
    serving.adopted = Some(new);
    decides(&serving, "complete 7: claim g2, confirm g2");
}

#[test]
fn a_half_done_claim_is_resumed_where_it_stands() {
    let ring = ring(7, 1, &[1, 2]);
    let home = || claimed(identity(1, 1), &ring, false);
    decides(&view([home(), identity(2, 1)]), "resume 7: claim g2, confirm g1, confirm g2");
    let other = claimed(identity(2, 1), &ring, false);
    decides(&view([home(), other]), "resume 7: confirm g1, confirm g2");
    decides(
        &down(view([home()]), "http://g2r1"),
        "wait: the claim of ring c0000000000000007 is half done, and group g2",
    );
    let mut serving = view([claimed(identity(1, 1), &ring, true), identity(2, 1)]);
    serving.adopted = Some(ring.clone());
    decides(&serving, "complete 7: claim g2, confirm g2");
}

#[test]
fn an_orphan_is_doubted_first_and_then_released_home_first() {
    let mut view = view([identity(1, 1), claimed(identity(2, 1), &ring(7, 1, &[1, 2]), false)]);
    decides(&view, "doubt 7");
    view.doubted = Some(ClusterId(7));
    decides(&view, "release 7: release g1, release g2");
}

#[test]
fn an_orphan_whose_home_does_not_answer_waits() {
    let orphan = claimed(identity(2, 1), &ring(7, 1, &[1, 2]), false);
    let view = down(view([orphan]), "http://g1r1");
    decides(&view, "wait: the claim of ring c0000000000000007 is half done, and group g1");
}

#[test]
fn a_refused_claim_is_released_and_then_not_tried_for_a_while() {
    let ring = ring(7, 1, &[1, 2]);
    let refused = Refused { cluster: ClusterId(7), reason: "group g2: foreign keys".into() };
    let mut held = view([claimed(identity(1, 1), &ring, false), identity(2, 1)]);
    held.refused = Some(refused.clone());
    decides(&held, "release 7: release g1");
    let mut free = view([identity(1, 1), identity(2, 1)]);
    free.refused = Some(refused);
    decides(&free, "wait: group g2: foreign keys");
    free.refused = None;
    decides(&free, "begin 99");
}

#[test]
fn a_claim_blocked_by_a_ring_that_lives_is_released() {
    let mine = ring(7, 1, &[1, 2]);
    let theirs = ring(8, 1, &[2, 3]);
    let home = claimed(identity(1, 1), &mine, false);
    let taken = claimed(identity(2, 1), &theirs, false);
    let mut view = view([home.clone(), taken.clone(), identity(3, 1)]);
    decides(&view, "doubt 7");
    view.doubted = Some(ClusterId(7));
    decides(&view, "release 7: release g1");
    let serving = View { adopted: Some(theirs), ..view };
    decides(&serving, "release 7: release g1");
}

#[test]
fn a_lagging_follower_is_outvoted_by_its_leader_and_by_anyone_who_knows_more() {
    let ring = ring(7, 1, &[1]);
    let lagging = identity(1, 2);
    let leader = claimed(identity(1, 1), &ring, false);
    decides(&view([leader, lagging.clone()]), "resume 7: confirm g1");
    let other = claimed(identity(1, 1), &ring, true);
    let other = Identity { leader: None, ..other };
    decides(&view([lagging, other]), "adopt 7");
}

#[test]
fn a_group_that_is_served_and_whole_needs_nothing() {
    let ring = ring(7, 1, &[1, 2]);
    let mut whole = view([
        claimed(identity(1, 1), &ring, true),
        claimed(identity(2, 1), &ring, true),
        identity(3, 1),
    ]);
    whole.adopted = Some(ring.clone());
    decides(&whole, "rest");
    // One without a leader is left alone until it has one.
    let leaderless = Identity { leader: None, ..identity(2, 1) };
    let mut waiting = view([claimed(identity(1, 1), &ring, true), leaderless]);
    waiting.adopted = Some(ring);
    decides(&waiting, "rest");
}

#[test]
fn a_plan_goes_on_only_as_long_as_its_outcomes_are_those_planned() {
    let cluster = ClusterId(7);
    let group = ring(7, 1, &[1]).groups.remove(0);
    let verdict = |action: &Action, outcome: Outcome| {
        judge(&Proposal { group: group.clone(), action: action.clone() }, &outcome)
    };
    let claim = Claim { topology: ring(7, 1, &[1]), owned: Vec::new() };
    let claim = Action::Claim(Box::new(claim));
    let (confirm, release) = (Action::Confirm { cluster }, Action::Release { cluster });
    let refused = Outcome::Refused;
    let other = || Refusal::OtherCluster { cluster: ClusterId(8), epoch: 1 };
    for action in [&claim, &confirm, &release] {
        assert_eq!(verdict(action, Outcome::Done), Verdict::Next);
    }
    for action in [&claim, &confirm] {
        assert_eq!(verdict(action, refused(other())), Verdict::AskAgain);
        assert_eq!(verdict(action, refused(Refusal::NotClaimed)), Verdict::AskAgain);
    }
    assert_eq!(verdict(&release, refused(other())), Verdict::Next);
    assert_eq!(verdict(&release, refused(Refusal::NotClaimed)), Verdict::Next);
    assert_eq!(verdict(&release, refused(Refusal::Confirmed)), Verdict::AskAgain);
    let foreign = verdict(&claim, refused(Refusal::ForeignKeys { keys: 3 }));
    assert_eq!(
        foreign,
        Verdict::Refused(
            "group g1: the group holds 3 keys that the ring gives to other groups; \
             move or delete them first"
                .into()
        )
    );
}
