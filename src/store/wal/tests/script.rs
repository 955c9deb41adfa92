//! Recovery as scripts: `src/store/testscripts/wal_*.txt`.
//!
//! A script is blocks of commands, a line `---`, and what they print. With `UPDATE_GOLDEN=1` the
//! test writes what it sees instead of comparing.
//!
//! ```text
//! append 1 1..3 [bytes]     entries 1 to 3 of term 1, one batch
//! vote 2 / commit 1 3 / truncate 1 2 / truncate none / purge 1 2
//! flip 2 30                 a bit of byte 30 of batch 2
//! cut 3 12                  the file ends after byte 12 of batch 3
//! wipe 3 12                 zeros from byte 12 of batch 3 to its end
//! remove 2                  the file of segment 2
//! batches                   prints where they are
//! recover                   restarts, prints the state or why not
//! ```

use std::fmt::Write;
use std::fs;

use super::*;

struct Script {
    dir: TempDir,
    wal: Option<Wal>,
    out: String,
}

impl Script {
    fn wal(&mut self) -> &Wal {
        let dir = self.dir.path();
        self.wal.get_or_insert_with(|| open(dir).unwrap())
    }

    async fn close(&mut self) {
        if let Some(wal) = self.wal.take() {
            wal.close().await.unwrap();
        }
    }

    /// The batch of that sequence number in the closed log.
    async fn batch(&mut self, sequence: &str) -> OnDisk {
        self.close().await;
        let sequence: u64 = sequence.parse().unwrap();
        let found = batches(self.dir.path()).into_iter().find(|batch| batch.sequence == sequence);
        found.unwrap_or_else(|| panic!("no batch {sequence}"))
    }

    async fn run(&mut self, command: &str) {
        let words: Vec<_> = command.split_whitespace().collect();
        match words[..] {
            ["append", term, range, ref bytes @ ..] => {
                let (first, last) = range.split_once("..").unwrap_or((range, range));
                let range = first.parse().unwrap()..last.parse::<Index>().unwrap() + 1;
                let bytes = bytes.first().map_or(10, |bytes| bytes.parse().unwrap());
                append(self.wal(), term.parse().unwrap(), range, bytes).await;
            }
            ["vote", term] => {
                self.wal().save_vote(vote(term.parse().unwrap())).await.unwrap();
            }
            ["commit", term, index] => {
                self.wal().save_committed(Some(log_id(term, index))).await.unwrap();
            }
            ["truncate", "none"] => self.wal().truncate_after(None).await.unwrap(),
            ["truncate", term, index] => {
                self.wal().truncate_after(Some(log_id(term, index))).await.unwrap();
            }
            ["purge", term, index] => {
                self.wal().purge(log_id(term, index)).await.unwrap();
            }
            ["flip", batch, byte] => self.batch(batch).await.flip(byte.parse().unwrap()),
            ["cut", batch, byte] => self.batch(batch).await.cut(byte.parse().unwrap()),
            ["wipe", batch, byte] => {
                let (batch, from) = (self.batch(batch).await, byte.parse().unwrap());
                batch.write(&vec![0; batch.range.len() - from], from);
            }
            ["remove", segment] => {
                self.close().await;
                let segment = segment.parse().unwrap();
                fs::remove_file(crate::store::wal::segment::path(
                    &self.dir.path().join("wal"),
                    segment,
                ))
                .unwrap();
            }
            ["batches"] => {
                self.close().await;
                for OnDisk { sequence, segment, range, .. } in batches(self.dir.path()) {
                    writeln!(self.out, "batch {sequence}: segment {segment}, bytes {range:?}")
                        .unwrap();
                }
            }
            ["recover"] => self.recover().await,
            _ => panic!("unknown command: {command}"),
        }
    }

    async fn recover(&mut self) {
        self.close().await;
        match open(self.dir.path()) {
            Ok(wal) => {
                let show = |id: Option<LogId>| {
                    id.map_or("none".to_owned(), |id| format!("{}@{}", id.term, id.index))
                };
                let ids = ids(&wal).await;
                let ids: Vec<_> = ids.into_iter().map(|id| show(Some(id))).collect();
                writeln!(
                    self.out,
                    "entries [{}], last {}, purged {}, committed {}, vote {}",
                    ids.join(" "),
                    show(wal.last()),
                    show(wal.purged()),
                    show(wal.committed()),
                    wal.vote().map_or("none".to_owned(), |vote| vote.term.to_string()),
                )
                .unwrap();
                self.wal = Some(wal);
            }
            Err(error) => {
                let dir = format!("{}/wal/", self.dir.path().display());
                writeln!(self.out, "error: {}", error.to_string().replace(&dir, "")).unwrap();
            }
        }
    }
}

fn log_id(term: &str, index: &str) -> LogId {
    id(term.parse().unwrap(), index.parse().unwrap())
}

/// Runs a script; the script with what it really prints.
async fn run(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut script = Script { dir, wal: None, out: String::new() };
    let mut printed = String::new();
    let mut in_output = false;
    for line in text.lines() {
        let command = line.split('#').next().unwrap().trim();
        match line {
            "---" => {
                in_output = true;
                printed += "---\n";
                printed += &std::mem::take(&mut script.out);
            }
            "" => {
                in_output = false;
                printed.push('\n');
            }
            _ if in_output => {}
            _ => {
                printed += line;
                printed.push('\n');
                if !command.is_empty() {
                    script.run(command).await;
                }
            }
        }
    }
    script.close().await;
    printed
}

#[tokio::test]
async fn recovery_does_as_the_scripts_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/testscripts");
    let mut scripts = 0;
    for file in fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        if !path.file_name().unwrap().to_str().unwrap().starts_with("wal_") {
            continue;
        }
        scripts += 1;
        let text = fs::read_to_string(&path).unwrap();
        let printed = run(&text).await;
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, printed).unwrap();
        } else {
            assert_eq!(printed, text, "{}", path.display());
        }
    }
    assert!(scripts >= 4, "the scripts are gone");
}
