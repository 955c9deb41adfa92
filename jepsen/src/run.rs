//! One run: start, attack, heal, look at everything once more, judge.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::cluster::Cluster;
use crate::history::{Action, Recorder};
use crate::nemesis::{Faults, kill};
use crate::options::Options;
use crate::program;
use crate::report::{Facts, Verdict, progress};
use crate::workload::ledger::{Board, Worker, read};

/// How long a fresh cluster may take until it serves.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a healed cluster may take until it serves; longer is an anomaly.
const HEAL_MAX: Duration = Duration::from_secs(30);
/// Between two lines about the run.
const PROGRESS: Duration = Duration::from_secs(1);
/// Clients that read everything at the end.
const FINAL_READERS: u32 = 32;
/// How often a final read is tried.
const FINAL_TRIES: u32 = 5;

/// Everything one run works with.
struct Run {
    cluster: Arc<Cluster>,
    recorder: Arc<Recorder>,
    faults: Arc<Faults>,
}

/// Does what the options say and tells people about it.
pub(crate) async fn run(options: Options) -> Result<Verdict> {
    let program = program::find(options.sage.as_deref())?;
    let directory = TempDir::with_prefix("sage-jepsen-").context("no temporary directory")?;
    say(&format!(
        "{} groups of {}, {} coordinators, {} clients, {:?}, seed {}",
        options.groups,
        options.replicas,
        options.coordinators,
        options.clients,
        options.duration,
        options.seed
    ));
    let cluster = Arc::new(Cluster::start(&options, &program, directory.path())?);
    if let Err(error) = cluster.until_ready(START_MAX).await {
        let kept = directory.keep();
        return Err(error).with_context(|| format!("no cluster, see {}", kept.display()));
    }
    let (recorder, faults) = (Arc::new(Recorder::new()), Arc::default());
    let run = Run { cluster, recorder, faults };
    let facts = run.attack(&options).await;
    drop(run.cluster);
    let anomaly = !matches!(&facts, Ok(facts) if facts.anomalies.is_empty());
    if anomaly || options.keep {
        let kept = directory.keep();
        run.recorder.save(&kept.join("history.jsonl"))?;
        say(&format!("history, logs and data are in {}", kept.display()));
    }
    let facts = facts?;
    say(&facts.summary());
    Ok(facts.verdict())
}

impl Run {
    /// Attacks for as long as the options say, heals, and looks at everything.
    async fn attack(&self, options: &Options) -> Result<Facts> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for worker in self.workers(options)? {
            let stopped = stopped.clone();
            tasks.spawn(async move {
                worker.run(stopped).await;
                Ok(())
            });
        }
        let (cluster, faults) = (Arc::clone(&self.cluster), Arc::clone(&self.faults));
        tasks.spawn(kill::run(cluster, faults, options.seed, stopped));

        self.watch(options.duration, &mut tasks).await?;
        stop.send_replace(true);
        while let Some(ended) = tasks.join_next().await {
            ended.context("a client or the nemesis panicked")??;
        }
        self.cluster.heal()?;
        let mut facts = Facts {
            counts: self.recorder.counts(),
            faults: self.faults.all(),
            attacked: options.duration,
            longest_gap: self.recorder.longest_gap(),
            ..Facts::default()
        };
        facts.anomalies = self.cluster.died();
        if facts.anomalies.is_empty() {
            if let Err(error) = self.cluster.until_ready(HEAL_MAX).await {
                facts.anomalies.push(format!("the healed cluster does not serve: {error:#}"));
            } else {
                self.read_everything().await?;
            }
        }
        facts.unread = self.recorder.unread().len();
        facts.anomalies.extend(self.recorder.anomalies().iter().map(ToString::to_string));
        Ok(facts)
    }

    fn workers(&self, options: &Options) -> Result<Vec<Worker>> {
        let clients = usize::from(options.clients);
        let board = Arc::new(Board::new(clients));
        let urls = self.cluster.coordinators().iter().cycle();
        let workers = urls.take(clients).enumerate().map(|(id, url)| {
            let (board, recorder) = (Arc::clone(&board), Arc::clone(&self.recorder));
            let client = Client::new(url)?;
            Ok(Worker::new((id, clients), options.seed, client, board, recorder))
        });
        workers.collect()
    }

    /// Says how it goes until the time is over; ends early only if the harness fails.
    async fn watch(&self, duration: Duration, tasks: &mut JoinSet<Result<()>>) -> Result<()> {
        let end = tokio::time::sleep(duration);
        let mut end = std::pin::pin!(end);
        let mut tick = tokio::time::interval(PROGRESS);
        tick.tick().await;
        let mut before = self.recorder.counts();
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                ended = tasks.join_next() => {
                    ended.context("nobody works")?.context("a client or the nemesis panicked")??;
                }
                _ = tick.tick() => {
                    let counts = self.recorder.counts();
                    let anomalies = self.recorder.anomalies().len() + self.cluster.died().len();
                    let elapsed = self.recorder.elapsed();
                    let fault = self.faults.current();
                    say(&progress(elapsed, counts, before, fault, anomalies));
                    before = counts;
                }
            }
        }
    }

    /// Reads every key that was written to, through all coordinators.
    async fn read_everything(&self) -> Result<()> {
        let keys = Arc::new(self.recorder.unread());
        say(&format!("healed; reading all {} keys", keys.len()));
        let mut readers = JoinSet::new();
        let urls = self.cluster.coordinators().iter().cycle();
        for (reader, url) in (0..FINAL_READERS).zip(urls) {
            let client = Client::new(url)?;
            let (keys, recorder) = (Arc::clone(&keys), Arc::clone(&self.recorder));
            readers.spawn(async move {
                // Above every process that a client ever was.
                let process = u32::MAX - reader;
                for key in keys.iter().skip(reader as usize).step_by(FINAL_READERS as usize) {
                    for _ in 0..FINAL_TRIES {
                        let action = (Action::FinalRead, key);
                        if read(&client, &recorder, process, action).await {
                            break;
                        }
                    }
                }
            });
        }
        while let Some(ended) = readers.join_next().await {
            ended.context("a final reader panicked")?;
        }
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "the harness speaks to people")]
fn say(text: &str) {
    println!("{text}");
}
