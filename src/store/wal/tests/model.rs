//! Anything a caller may do, in any order, against a plain vector; with restarts and torn tails.

use std::fs;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::store::wal::record::{BatchBuilder, RecordRef};

#[derive(Clone, Debug)]
enum Op {
    /// So many entries of so many bytes, of a term this much higher.
    Append(u64, usize, Term),
    /// The same, and nobody waits until they are on disk.
    Queue(u64, usize),
    Vote(Term),
    Commit,
    /// Keeps this share of the entries, in percent.
    Truncate(u64),
    TruncateAll,
    /// Purges this share of the entries, in percent; above 100 it goes beyond the last.
    Purge(u64),
    Restart,
    /// A restart that finds the next batch torn off after so many bytes.
    Tear(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = prop_oneof![8 => 0..600_usize, 1 => 3000..20_000_usize];
    prop_oneof![
        8 => (0..12_u64, bytes, 0..2_u64).prop_map(|(n, bytes, term)| Op::Append(n, bytes, term)),
        4 => (0..12_u64, 0..600_usize).prop_map(|(n, bytes)| Op::Queue(n, bytes)),
        2 => (0..2_u64).prop_map(Op::Vote),
        2 => Just(Op::Commit),
        2 => (0..=100_u64).prop_map(Op::Truncate),
        1 => Just(Op::TruncateAll),
        2 => (0..120_u64).prop_map(Op::Purge),
        1 => Just(Op::Restart),
        1 => (0..400_usize).prop_map(Op::Tear),
    ]
}

#[derive(Default)]
struct Model {
    term: Term,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: Vec<Entry>,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.id).or(self.purged)
    }

    fn next(&self) -> Index {
        self.last().map_or(0, |last| last.index + 1)
    }

    /// The position of the entry `percent` of the way.
    fn at(&self, percent: u64) -> Option<LogId> {
        let at = self.entries.len() * usize::try_from(percent).unwrap() / 100;
        self.entries.get(at).map(|entry| entry.id)
    }
}

/// Does `op` to the log and to the model.
async fn apply(wal: &mut Wal, dir: &Path, model: &mut Model, op: &Op) {
    match *op {
        Op::Append(n, bytes, term) => {
            model.term += term;
            let range = model.next()..model.next() + n;
            append(wal, model.term, range.clone(), bytes).await;
            model.entries.extend(range.map(|index| entry(model.term, index, bytes)));
        }
        Op::Queue(n, bytes) => {
            let entries: Vec<_> =
                (0..n).map(|i| entry(model.term, model.next() + i, bytes)).collect();
            wal.append(entries.clone(), Box::new(Result::unwrap)).await.unwrap();
            model.entries.extend(entries);
        }
        Op::Vote(term) => {
            model.term += term;
            wal.save_vote(vote(model.term)).await.unwrap();
            model.vote = Some(vote(model.term));
        }
        Op::Commit => {
            wal.save_committed(model.last()).await.unwrap();
            model.committed = model.last();
        }
        Op::Truncate(percent) => {
            let last = model.at(percent).or(model.last());
            wal.truncate_after(last).await.unwrap();
            model.entries.retain(|entry| Some(entry.id.index) <= last.map(|last| last.index));
        }
        Op::TruncateAll => {
            wal.truncate_after(None).await.unwrap();
            model.entries.clear();
        }
        Op::Purge(percent) => {
            let beyond = id(model.term, model.next() + percent);
            let upto = if percent > 100 { beyond } else { model.at(percent).unwrap_or(beyond) };
            wal.purge(upto).await.unwrap();
            model.purged = Some(upto);
            model.entries.retain(|entry| entry.id.index > upto.index);
        }
        Op::Restart => {
            wal.close().await.unwrap();
            *wal = open(dir).unwrap();
        }
        Op::Tear(bytes) => {
            wal.close().await.unwrap();
            tear(dir, model.next(), bytes);
            *wal = open(dir).unwrap();
        }
    }
}

/// Leaves `bytes` bytes of a batch at the end of the log, as a crash might.
fn tear(dir: &Path, next: Index, bytes: usize) {
    let last = batches(dir).pop();
    let path = last.as_ref().map_or_else(|| segments(dir)[0].clone(), |last| last.path.clone());
    let mut file = fs::read(&path).unwrap();
    let header = SegmentHeader::decode(&file).unwrap();
    let mut records = Vec::new();
    RecordRef::Entry(&entry(99, next, 300)).encode(&mut records);
    let mut batch = BatchBuilder::new();
    batch.push(&records);
    let sequence = last.as_ref().map_or(1, |last| last.sequence + 1);
    let torn = batch.seal(sequence, header.identity);
    let torn = &torn[..bytes.min(torn.len() - 16)];
    let end = last.map_or(SEGMENT_START, |last| last.range.end);
    let room = torn.len().min(file.len() - end);
    file[end..end + room].copy_from_slice(&torn[..room]);
    fs::write(&path, file).unwrap();
}

async fn check(wal: &Wal, model: &Model) {
    assert_eq!(wal.last(), model.last());
    assert_eq!(wal.purged(), model.purged);
    assert_eq!(wal.vote(), model.vote);
    assert_eq!(wal.committed(), model.committed);
    let read = wal.entries(0..Index::MAX, usize::MAX).await.unwrap();
    let got: Vec<_> = read.iter().map(|entry| entry.id).collect();
    let expected: Vec<_> = model.entries.iter().map(|entry| entry.id).collect();
    assert_eq!(got, expected);
    assert!(read == model.entries, "an entry has the right id and the wrong content");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_vector_that_survives(ops in proptest::collection::vec(op(), 1..40)) {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut wal = open(dir.path()).unwrap();
            let mut model = Model::default();
            for op in &ops {
                apply(&mut wal, dir.path(), &mut model, op).await;
                check(&wal, &model).await;
            }
            apply(&mut wal, dir.path(), &mut model, &Op::Restart).await;
            check(&wal, &model).await;
            wal.close().await.unwrap();
        });
    }
}
