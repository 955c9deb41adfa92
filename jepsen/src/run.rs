//! One run: start, attack, heal, look at everything once more, judge, keep what was seen.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sagedb::types::clock::{Clock, SystemClock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, RwLock, watch};
use tokio::task::JoinSet;

use crate::checker::{self, Anomaly, Kind};
use crate::cluster::{Cluster, Layout};
use crate::folder;
use crate::healing;
use crate::history::Recorder;
use crate::judge::{self, Evidence};
use crate::monitor;
use crate::nemesis::{self, Clocks, Context, FaultKind};
use crate::net::Net;
use crate::options::{Options, name_of};
use crate::planted;
use crate::program::{self, Build};
use crate::results::{Results, Setup};
use crate::stored::Stored;
use crate::summary::{progress, summary};
use crate::workload::{self, watcher::Watchers};

/// How long a fresh cluster may take until it serves.
const START_MAX: Duration = Duration::from_secs(60);
/// Between two lines about the run.
const PROGRESS: Duration = Duration::from_secs(1);

/// Everything one run works with.
struct Run {
    options: Options,
    cluster: Arc<Cluster>,
    net: Net,
    clocks: Option<Clocks>,
    recorder: Arc<Recorder>,
}

/// Does what the options say and tells people about it.
pub(crate) async fn run(options: Options) -> Result<Results> {
    let built = if options.bug.is_some() { Build::Planted } else { Build::Plain };
    let program = program::find(options.sage.as_deref(), built)?;
    let folder = folder(&options)?;
    let setup = setup(&options);
    say(&format!("{}\n{}", setup.command_line(), folder.display()));
    let run = interruptible(Run::start(options, &program, &folder)).await?;
    let evidence = interruptible(run.attack()).await;
    let Run { options, cluster, recorder, .. } = run;
    drop(cluster);
    let (evidence, failure) = match evidence {
        Ok(evidence) => (Some(evidence), None),
        Err(error) => (None, Some(error)),
    };
    let (events, faults) = (recorder.events(), recorder.faults());
    let stored = Stored { setup, events, faults, evidence };
    folder::keep_history(&folder, &stored)?;
    if let Some(failure) = failure {
        return Err(failure).with_context(|| format!("see {}", folder.display()));
    }
    let workload = options.workload;
    let judged = tokio::task::spawn_blocking(move || {
        let checked = checker::check(workload, &stored.events);
        let (setup, evidence) = (stored.setup.clone(), stored.evidence.clone());
        let results = judge::judge(setup, evidence, checked, &stored.events, &stored.faults);
        (results, stored)
    });
    let (results, stored) = judged.await.context("a checker panicked")?;
    folder::keep_results(&folder, &results, &stored)?;
    if results.anomalies.is_empty() && !options.keep {
        folder::forget_data(&folder)?;
    }
    say(&summary(&results));
    say(&format!("report      {}", folder.join("report.html").display()));
    Ok(results)
}

impl Run {
    async fn start(options: Options, program: &Path, folder: &Path) -> Result<Self> {
        let layout = Layout::new(&options);
        let net = Net::start(layout.ports().to_vec(), options.seed).await?;
        let servers = folder.join("servers");
        std::fs::create_dir_all(&servers).context("no folder for the servers")?;
        let wanted = options.kinds().contains(&FaultKind::Clock);
        let clocks = Clocks::find(&servers).filter(|_| wanted);
        let environment = |at: usize, name: &str| -> Result<Vec<(String, String)>> {
            let mut environment = vec![("http_proxy".to_string(), net.proxy_url(at))];
            let bug = options.bug.clone().filter(|bug| planted::is_in(bug, name));
            environment.extend(bug.map(|bug| ("SAGE_BUG".to_string(), bug)));
            if let Some(clocks) = clocks.as_ref().filter(|_| !name.starts_with("coordinator")) {
                environment.extend(clocks.environment(at, name)?);
            }
            Ok(environment)
        };
        let cluster = Cluster::start(layout, (program, &servers), environment)?;
        if wanted && clocks.is_none() {
            say("clocks are left alone: libfaketime is not installed");
        }
        let started = cluster.until_ready(START_MAX).await;
        started.with_context(|| format!("no cluster, see {}", servers.display()))?;
        let recorder = Arc::new(Recorder::new(options.workload));
        Ok(Self { options, cluster: Arc::new(cluster), net, clocks, recorder })
    }

    /// Attacks for as long as the options say, heals, and looks at everything.
    async fn attack(&self) -> Result<Evidence> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let servers = self.cluster.servers();
        for worker in workload::workers(&self.options, &servers, &self.recorder)? {
            let stopped = stopped.clone();
            tasks.spawn(async move {
                worker.run(stopped).await;
                Ok(())
            });
        }
        let context = Arc::new(self.context(stopped.clone()));
        let kinds = self.options.kinds();
        if !kinds.is_empty() {
            tasks.spawn(nemesis::run(context, kinds, self.options.seed));
        }
        let watchers = Watchers::start(&self.options, &servers, &self.recorder)?;
        let (stop_monitor, monitor_stopped) = watch::channel(false);
        let mut monitor = JoinSet::new();
        let (cluster, recorder) = (Arc::clone(&self.cluster), Arc::clone(&self.recorder));
        monitor.spawn(monitor::run(cluster, recorder, monitor_stopped));
        self.watch(&mut tasks).await?;
        stop.send_replace(true);
        let attacked = self.recorder.now();
        while let Some(ended) = tasks.join_next().await {
            ended.context("a client or a nemesis panicked")??;
        }
        self.net.heal();
        self.cluster.start_all()?;
        let healing = if self.cluster.died().is_empty() {
            say("healed; looking at everything");
            healing::look(&self.cluster, &servers, &self.recorder).await?
        } else {
            healing::Healing::default()
        };
        let unsettled = watchers.finish(&self.recorder).await?;
        stop_monitor.send_replace(true);
        while let Some(ended) = monitor.join_next().await {
            ended.context("the monitor panicked")?;
        }
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut anomalies: Vec<Anomaly> = self.cluster.died().into_iter().map(died).collect();
        anomalies.extend(self.recorder.seen());
        anomalies.extend(healing.anomalies);
        anomalies.extend(unsettled);
        Ok(Evidence { attacked, recovered_ms: healing.served.map(milliseconds), anomalies })
    }

    fn context(&self, stop: watch::Receiver<bool>) -> Context {
        let processes = self.cluster.coordinators().end;
        Context {
            cluster: Arc::clone(&self.cluster),
            net: self.net.clone(),
            recorder: Arc::clone(&self.recorder),
            target: self.options.target,
            clocks: self.clocks.clone(),
            stop,
            disks: RwLock::default(),
            held: (0..processes).map(|_| Arc::new(Mutex::default())).collect(),
        }
    }

    /// Says how it goes until the time is over; ends early only if the harness fails, or at an
    /// anomaly if the options say so.
    async fn watch(&self, tasks: &mut JoinSet<Result<()>>) -> Result<()> {
        let end = tokio::time::sleep(self.options.duration);
        let mut end = std::pin::pin!(end);
        let mut tick = tokio::time::interval(PROGRESS);
        tick.tick().await;
        let mut before = self.recorder.counts();
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                ended = tasks.join_next() => {
                    ended.context("nobody works")?.context("a client or a nemesis panicked")??;
                }
                _ = tick.tick() => {
                    let counts = self.recorder.counts();
                    let anomalies = self.recorder.anomalies() + self.cluster.died().len();
                    let elapsed = self.recorder.elapsed();
                    let fault = self.recorder.current();
                    say(&progress(elapsed, counts, before, &fault, anomalies));
                    before = counts;
                    if anomalies > 0 && self.options.fail_fast {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn died(detail: String) -> Anomaly {
    Anomaly { kind: Kind::ServerDied, key: "cluster".into(), detail, events: Vec::new() }
}

/// Does something until it is done, or Ctrl-C or SIGTERM comes.
async fn interruptible<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = task => done,
        error = interrupted() => Err(error),
    }
}

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() -> anyhow::Error {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return anyhow::anyhow!("signals can't be handled");
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    anyhow::anyhow!("interrupted")
}

/// Makes the folder of this run.
fn folder(options: &Options) -> Result<PathBuf> {
    let nemesis: Vec<String> = options.nemesis.iter().map(name_of).collect();
    let workload = name_of(&options.workload);
    let now = SystemClock.now_ms();
    let name = format!("{workload}-{}-{}-{now}", nemesis.join("+"), options.seed);
    let folder = options.out.join(name);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("{} can't be made", folder.display()))?;
    folder.canonicalize().context("the folder of the run")
}

fn setup(options: &Options) -> Setup {
    Setup {
        workload: name_of(&options.workload),
        nemesis: options.nemesis.iter().map(name_of).collect(),
        target: name_of(&options.target),
        bug: options.bug.clone(),
        groups: options.groups,
        replicas: options.replicas,
        coordinators: options.coordinators,
        clients: options.clients,
        duration_ms: u64::try_from(options.duration.as_millis()).unwrap_or(u64::MAX),
        deadline_ms: u64::try_from(options.deadline.as_millis()).unwrap_or(u64::MAX),
        seed: options.seed,
    }
}

#[expect(clippy::print_stdout, reason = "the harness speaks to people")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}
