//! What all fuzzed decoders have in common, and the messages and commands of `types` themselves.
//!
//! A decoder is fuzzed by a function that takes any bytes and panics if what it does with them is
//! wrong; see `fuzz` for what is asked of each. How much memory a decoder takes is measured by
//! whoever has an allocator that counts: the function hands it the work and says how much is
//! allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::codec::{self, DecodeError};
use crate::types::command::{Action, Command, Condition, KeyWrite, Outcome, Refusal, Write};
use crate::types::error::{Decline, Error, Space};
use crate::types::hash::{HashRange, Token};
use crate::types::http::{MemberStatus, Role, ShardStatus};
use crate::types::ids::{ClusterId, GroupId, LogId, NodeId, SessionId, StateHash, Vote};
use crate::types::item::{Expiry, Item};
use crate::types::key::Key;
use crate::types::kv::{Consistency, GroupIndex, KvReply, KvRequest, Read, Written};
use crate::types::limits::{DECODED_BYTES_MAX, DECODED_BYTES_PER_BYTE, FRAME_BYTES_MAX};
use crate::types::log::{Entry, Membership, Payload, StoredMembership};
use crate::types::once::{IdempotencyKey, Once, WriteId};
use crate::types::peer::{
    Append, AppendReply, Checkpoint, Checkpoints, Hello, Identity, Lane, PROTOCOL_VERSION, Reply,
    Request, SnapshotHeader, SnapshotReply, TransferLeader, VoteReply, VoteRequest, Welcome,
};
use crate::types::scan::{Cursor, Found, Listed, Part, Scan, Span, Want};
use crate::types::topology::{Claim, Group, Member, Topology};
use crate::types::value::{Value, ValueKind};
use crate::types::watch::{Ask, Change, Event, Place, Told};

/// Runs the work once and fails if it ever held more than so many bytes of memory.
pub type Watch<'a> = &'a dyn Fn(usize, &mut dyn FnMut());

/// A decoder and what fuzzes it.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// What it is called here and in `fuzz/`.
    pub name: &'static str,
    /// Judges what becomes of any bytes; whether they, or they with right checksums, were decoded.
    pub run: fn(&[u8], Watch<'_>) -> bool,
    /// Small inputs that are decoded: where a search begins.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// The most memory that decoding `len` bytes of postcard may take, if they are few. A list reserves room
/// for as many elements as it announces, if so many bytes are left and it is no more than its bound: at
/// most 128 bytes, an entry's size, for each. In it other lists can do the same: the groups of a claim
/// (56 bytes each) and their URLs (24). A list that grows holds three times what it has; an entry
/// has four bytes at least, and a set of one node two.
pub(crate) fn allowed(len: usize) -> usize {
    4096 + 256 * len
}

/// The most memory that decoding a message of `len` bytes may take: its lists have bounds.
pub(crate) fn allowed_message(len: usize) -> usize {
    allowed(len).min(DECODED_BYTES_MAX + DECODED_BYTES_PER_BYTE * len)
}

/// What `decode` gives, watched.
pub(crate) fn watched<T>(watch: Watch<'_>, allowed: usize, decode: impl FnOnce() -> T) -> T {
    let (mut decode, mut decoded) = (Some(decode), None);
    watch(allowed, &mut || decoded = decode.take().map(|decode| decode()));
    decoded.expect("a watch runs its work")
}

/// The same bytes but for one bit, which follows from the bytes; `None` if there are none.
pub(crate) fn bent(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bent = bytes.to_vec();
    let noise = bytes
        .iter()
        .fold(bytes.len(), |noise, byte| noise.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let bit = noise.checked_rem(bytes.len() * 8)?;
    bent[bit / 8] ^= 1 << (bit % 8);
    Some(bent)
}

/// The messages between processes; the first byte says which type follows.
///
/// # Panics
/// If a message that was decoded does not survive being encoded again.
pub fn peer(bytes: &[u8], watch: Watch<'_>) -> bool {
    let Some((selector, bytes)) = bytes.split_first() else { return false };
    match selector % 8 {
        0 => message::<Request>(bytes, watch),
        1 => message::<Reply>(bytes, watch),
        2 => message::<Append>(bytes, watch),
        3 => message::<AppendReply>(bytes, watch),
        4 => message::<SnapshotHeader>(bytes, watch),
        5 => message::<SnapshotReply>(bytes, watch),
        6 => message::<Hello>(bytes, watch),
        _ => message::<Welcome>(bytes, watch),
    }
}

/// What goes through a log; the first byte says which type follows.
///
/// # Panics
/// If a value that was decoded does not survive being encoded again.
pub fn command(bytes: &[u8], watch: Watch<'_>) -> bool {
    let Some((selector, bytes)) = bytes.split_first() else { return false };
    match selector % 6 {
        0 => message::<Command>(bytes, watch),
        1 => message::<Entry>(bytes, watch),
        2 => message::<Vote>(bytes, watch),
        3 => message::<Option<LogId>>(bytes, watch),
        4 => message::<StoredMembership>(bytes, watch),
        _ => message::<Outcome>(bytes, watch),
    }
}

/// The query whose cursors are looked for: any will do.
const QUERY: u64 = 7;

/// The cursor of a scan, as a client sends it, and once more with the bytes in its alphabet.
///
/// # Panics
/// If a cursor that was taken does not survive being given again, or is taken for another query.
pub fn cursor(bytes: &[u8], watch: Watch<'_>) -> bool {
    let any = cursor_text(bytes, watch);
    cursor_text(BASE64_URL_SAFE_NO_PAD.encode(bytes).as_bytes(), watch) || any
}

fn cursor_text(text: &[u8], watch: Watch<'_>) -> bool {
    let parsed = watched(watch, allowed(text.len()), || Cursor::parse(text, QUERY));
    let Some(last) = parsed else { return false };
    let ours = Cursor::new(QUERY, last.clone()).text();
    assert!(ours.len() <= text.len(), "{last:?} grew from {} bytes", text.len());
    assert_eq!(Cursor::parse(ours.as_bytes(), QUERY), Some(last), "as it was encoded");
    assert_eq!(Cursor::parse(text, QUERY + 1), None, "it belongs to its query");
    assert_eq!(Cursor::parse(&text[1..], QUERY), None, "without its version");
    assert_eq!(Cursor::parse(&text[..text.len() - 1], QUERY), None, "cut short");
    assert_eq!(Cursor::parse(&[text, b"A"].concat(), QUERY), None, "with more behind it");
    true
}

fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    bytes: &[u8],
    watch: Watch<'_>,
) -> bool {
    let decode = || codec::decode::<T>(bytes, FRAME_BYTES_MAX);
    let value = match watched(watch, allowed_message(bytes.len()), decode) {
        Ok(value) => value,
        Err(error) => {
            assert!(!error.to_string().is_empty(), "an error says what is wrong");
            return false;
        }
    };
    let mut encoded = codec::encode(&value);
    assert!(encoded.len() <= bytes.len(), "{value:?} grew from {} bytes", bytes.len());
    let again = codec::decode::<T>(&encoded, encoded.len());
    assert_eq!(again.as_ref(), Ok(&value), "it is decoded as it was encoded");
    let longest = encoded.len().saturating_sub(1);
    assert!(codec::decode::<T>(&encoded[..longest], longest).is_err(), "{value:?} cut short");
    encoded.push(0);
    assert_eq!(codec::decode::<T>(&encoded, encoded.len()), Err(DecodeError::LeftOver(1)));
    true
}

fn requests() -> Vec<Request> {
    vec![
        Request::Identify,
        Request::Adopt { group: GroupId(7) },
        Request::Join(member(3)),
        Request::Kv { request: KeyWrite::put(key(), json()).into(), timeout_ms: 5000 },
        Request::Kv {
            request: KvRequest::Get {
                key: key(),
                consistency: Consistency::Lease,
                at_least: vec![GroupIndex { group: "g1".into(), index: 12 }],
            },
            timeout_ms: 300,
        },
        Request::Kv {
            request: KvRequest::Write {
                write: KeyWrite {
                    key: key(),
                    condition: Some(Condition::Version(vec![1, 300])),
                    write: Write::Put { value: Value::text("new") },
                },
                once: Some(Once::Session(write_id())),
            },
            timeout_ms: 1,
        },
        Request::Propose {
            action: Action::OpenSession { session: SessionId(9) },
            timeout_ms: 5000,
        },
        Request::Propose { action: Action::Claim(Box::new(claim())), timeout_ms: 5000 },
        Request::Vote(VoteRequest { vote: vote(), last: Some(id(9)), leadership_transfer: true }),
        Request::Append(append()),
        Request::TransferLeader(TransferLeader { from: vote(), to: NodeId(2), last: Some(id(4)) }),
        Request::Compare(checkpoints()),
        Request::ReadIndex { timeout_ms: 300 },
        Request::Scan { scan: scan(Want::Count), timeout_ms: 5000 },
        Request::Scan {
            scan: scan(Want::Page { limit: 100, bytes: 4096, reverse: true, keys_only: false }),
            timeout_ms: 5000,
        },
        Request::Watch {
            ask: Ask {
                span: Span::of_prefix(b"user:"),
                from: Place { index: 300, part: 2 },
                wait_ms: 250,
                bytes: 4096,
                anyone: false,
            },
            timeout_ms: 5000,
        },
    ]
}

/// Where a search for cursors begins: texts, and what the bytes of one are before they are text.
pub(crate) fn cursor_seeds() -> Vec<Vec<u8>> {
    let last = |text: &str| Cursor::new(QUERY, Key::new(text).expect("a key")).text();
    let texts = [last("k"), last("{user:1}/größe"), last(&"long".repeat(40))];
    let bytes = texts.iter().map(|text| BASE64_URL_SAFE_NO_PAD.decode(text).expect("our alphabet"));
    let bytes: Vec<_> = bytes.collect();
    texts.into_iter().map(String::into_bytes).chain(bytes).collect()
}

fn told() -> Told {
    let event = |change, version| Event { key: key(), change, ts: 1_755_248_123_456, version };
    let put = Change::Put { value: json(), expires: Some(300) };
    let place = |part| Place { index: 300, part };
    let events = vec![(place(2), event(put, 7)), (place(3), event(Change::Expire, 8))];
    Told { events, next: Place::behind(300) }
}

/// Where a search for messages begins.
pub(crate) fn peer_seeds() -> Vec<Vec<u8>> {
    let at = GroupIndex { group: "g1".into(), index: 12 };
    let why = Decline::VersionMismatch { version: Some(7) };
    let item =
        Some(Item { value: json(), ts: 1_755_248_123_456, version: 3, expires: Expiry::NEVER });
    let written = Written {
        at: at.clone(),
        ts: 1,
        version: 2,
        existed: true,
        expires: Some(300),
        value: Some(-7),
        acks: 2,
        quorum: 2,
    };
    let replies = [
        Reply::Identity(Box::new(identity())),
        Reply::Accepted(Err("the group has formed".into())),
        Reply::Kv(Ok(KvReply::Read(Read { at: at.clone(), item, lag_ms: Some(7) }))),
        Reply::Kv(Err(Error::Declined { why, at })),
        Reply::Kv(Ok(KvReply::Written(written))),
        Reply::Kv(Err(Error::NotLeader { leader: Some(member(1)) })),
        Reply::Kv(Err(Error::NoRoom(Space::Memory { max: 1 << 30 }))),
        Reply::Proposed(Ok(Outcome::Refused(Refusal::ForeignKeys { keys: 4 }))),
        Reply::Status(Box::new(status())),
        Reply::Vote(VoteReply { vote: vote(), granted: true, last: Some(id(9)) }),
        Reply::Append(AppendReply::Conflict),
        Reply::NotReady("forming".into()),
        Reply::Compared(checkpoints()),
        Reply::ReadIndex(Ok(300)),
        Reply::Scanned(Ok(part(Found::Count(7)))),
        Reply::Scanned(Ok(part(Found::Page { items: vec![listed()], more: true }))),
        Reply::Watched(Ok(told())),
        Reply::Watched(Err(Error::Compacted { oldest: "g1:299".into() })),
    ];
    let (last, bytes) = (Some(id(9)), 70_000);
    let header = SnapshotHeader { vote: vote(), last, membership: membership(), bytes };
    let mut seeds: Vec<_> = requests().iter().map(|request| seed(0, request)).collect();
    seeds.extend(replies.iter().map(|reply| seed(1, reply)));
    seeds.extend([
        seed(2, &append()),
        seed(3, &AppendReply::Partial { upto: Some(id(9)), lease: true }),
        seed(4, &header),
        seed(5, &SnapshotReply::Ok(vote())),
        seed(6, &hello()),
        seed(7, &Welcome::Err("this node is n0000000000000001".into())),
    ]);
    seeds
}

/// Where a search for commands begins.
pub(crate) fn command_seeds() -> Vec<Vec<u8>> {
    let name = "eu-1".to_owned();
    let write = Write::Delete;
    let actions = [
        Action::Found { group: GroupId(7), name },
        Action::Put { key: key(), value: json() },
        Action::Delete { key: key() },
        Action::Claim(Box::new(claim())),
        Action::Confirm { cluster: ClusterId(5) },
        Action::Conditional { key: key(), condition: Condition::Version(vec![1, 300]), write },
        Action::OpenSession { session: SessionId(9) },
        Action::Once { once: Once::Session(write_id()), write: KeyWrite::put(key(), json()) },
        Action::Once {
            once: Once::Key(IdempotencyKey::new("8e03978e").expect("a key")),
            write: KeyWrite::delete(key()),
        },
        Action::Write(KeyWrite {
            key: key(),
            condition: None,
            write: Write::PutFor { value: json(), ttl_ms: 30_000 },
        }),
        Action::Conditional {
            key: key(),
            condition: Condition::Present,
            write: Write::Touch { ttl_ms: Some(300) },
        },
        Action::Expire,
        Action::DeleteSpan { span: Span::of_prefix(b"user:"), limit: 9, once: Some(write_id()) },
    ];
    let commands = actions.into_iter().map(|action| Command { ts: 1_755_248_123_456, action });
    let mut seeds: Vec<_> = commands.map(|command| seed(0, &command)).collect();
    seeds.extend(entries().iter().map(|entry| seed(1, entry)));
    seeds.extend([
        seed(2, &vote()),
        seed(3, &Some(id(1 << 40))),
        seed(4, &membership()),
        seed(5, &Outcome::Written { version: 4, existed: true }),
        seed(5, &Outcome::Lasting { version: 4, existed: true, expires: Some(1_755_248_123_456) }),
        seed(5, &Outcome::Deleted { index: 300, keys: 4, more: true }),
    ]);
    seeds
}

fn seed<T: Serialize>(selector: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![selector];
    codec::encode_into(value, &mut bytes);
    bytes
}

pub(crate) fn id(index: u64) -> LogId {
    LogId { term: 2, leader: NodeId(0xab), index }
}

fn write_id() -> WriteId {
    WriteId { session: SessionId(9), slot: 3, seq: 300 }
}

pub(crate) fn vote() -> Vote {
    Vote { term: 2, node: NodeId(0xab), committed: true }
}

pub(crate) fn hello() -> Hello {
    let (from, to) = (Some(NodeId(1)), Some(NodeId(2)));
    Hello { version: PROTOCOL_VERSION, lane: Lane::Append, from, to, group: Some(GroupId(7)) }
}

/// One entry of each kind, from index 4 on.
pub(crate) fn entries() -> [Entry; 3] {
    let action = Action::Put { key: key(), value: json() };
    [
        Entry { id: id(4), payload: Payload::Blank },
        Entry { id: id(5), payload: Payload::Command(Command { ts: 7, action }) },
        Entry { id: id(6), payload: Payload::Membership(membership().membership) },
    ]
}

pub(crate) fn membership() -> StoredMembership {
    let voters = vec![BTreeSet::from([NodeId(1), NodeId(2)]), BTreeSet::from([NodeId(1)])];
    let urls = BTreeMap::from([(NodeId(1), member(1).url), (NodeId(2), member(2).url)]);
    StoredMembership { id: Some(id(3)), membership: Membership { voters, urls } }
}

pub(crate) fn claim() -> Claim {
    let group = Group { id: GroupId(7), name: "eu-1".into(), urls: vec![member(1).url] };
    let cluster = ClusterId(5);
    let topology = Topology { cluster, epoch: 1, vnodes: 100, groups: vec![group] };
    let owned = vec![HashRange { after: Token(9), upto: Token(9) }];
    Claim { topology, owned }
}

fn append() -> Append {
    Append {
        vote: vote(),
        prev: Some(id(3)),
        entries: entries().to_vec(),
        committed: Some(id(2)),
        as_of: Some(1_755_248_123_456),
        lease_ms: Some(500),
    }
}

fn checkpoints() -> Checkpoints {
    let checkpoint = |index| Checkpoint { id: id(index), hash: StateHash(index) };
    Checkpoints { digest: 1, taken: vec![checkpoint(512), checkpoint(1024)] }
}

fn key() -> Key {
    Key::new("user:1").expect("a key")
}

fn scan(want: Want) -> Scan {
    Scan { span: Span::of_prefix(b"user:"), want, consistency: Consistency::Linearizable }
}

fn listed() -> Listed {
    Listed { key: key(), value: Some(json()), ts: 1_755_248_123_456, version: 3, expires: Some(7) }
}

fn part(found: Found) -> Part {
    Part { at: GroupIndex { group: "g1".into(), index: 12 }, epoch: 1, lag_ms: Some(7), found }
}

fn json() -> Value {
    Value { kind: ValueKind::Json, data: r#"{"a":1}"#.into() }
}

fn member(node: u64) -> Member {
    Member { node: NodeId(node), url: format!("http://n{node}:4101") }
}

fn identity() -> Identity {
    Identity {
        member: member(1),
        group: Some(GroupId(7)),
        name: Some("eu-1".into()),
        fresh: false,
        seeds: vec![member(1).url],
        members: vec![member(1)],
        leader: Some(member(1)),
        claim: Some(claim()),
        confirmed: true,
    }
}

fn status() -> ShardStatus {
    let node = NodeId(1);
    let url = member(1).url;
    let this = MemberStatus { node, url: url.clone(), voter: true, matched: Some(9) };
    ShardStatus {
        node,
        url: url.clone(),
        group: Some(GroupId(7)),
        name: Some("eu-1".into()),
        role: Role::Leader,
        term: 2,
        leader: Some(node),
        leader_url: Some(url),
        last_index: Some(9),
        committed: Some(9),
        applied: Some(id(9)),
        hash: StateHash(0x1234),
        compared: Some(512),
        differs: None,
        lag_ms: Some(0),
        members: vec![this],
        quorum: 1,
        keys: 1,
        bytes: 13,
        memory: 269,
        max_memory: None,
        disk_full: false,
        cluster: Some(ClusterId(5)),
        epoch: 1,
        wal_bytes: 1 << 24,
        snapshot_bytes: 0,
        snapshot_index: None,
        purged: None,
    }
}
