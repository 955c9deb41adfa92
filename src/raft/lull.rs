//! When a leader has nothing urgent to say to a follower.

use std::pin::Pin;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, Sleep, sleep};

use crate::raft::log_store::Appended;
use crate::types::ids::Index;

/// How long after the last entries, or their answer, the news of a commit goes to a follower by itself.
pub(in crate::raft) const COMMIT_DELAY: Duration = Duration::from_millis(2);

/// Whether it is time for another message to a follower.
///
/// openraft makes a message of its own for each commit position that no entries carry. Under a load that is one for
/// each batch, which the next batch would have carried a moment later, and it comes at the worst time: while the
/// leader answers its clients. So while entries come within [`COMMIT_DELAY`] of the last ones or of their answer, openraft is
/// asked for another message only when there are entries for it, or when the follower owes no answer and that time is over.
pub(in crate::raft) struct Lull {
    appended: Appended,
    /// Up to here entries were sent.
    sent: Option<Index>,
    /// Whether the last entries came before `end`, so that others are likely to.
    busy: bool,
    /// [`COMMIT_DELAY`] after the last message with entries, or the answer to it.
    end: Pin<Box<Sleep>>,
}

impl Lull {
    /// One of a stream that begins.
    pub(in crate::raft) fn new(appended: Appended) -> Self {
        Self { appended, sent: None, busy: false, end: Box::pin(sleep(Duration::ZERO)) }
    }

    /// Entries up to here have been sent.
    pub(in crate::raft) fn sent(&mut self, upto: Index) {
        let now = Instant::now();
        self.sent = Some(upto);
        self.busy = now < self.end.deadline();
        self.end.as_mut().reset(now + COMMIT_DELAY);
    }

    /// Entries were answered.
    pub(in crate::raft) fn answered(&mut self) {
        self.end.as_mut().reset(Instant::now() + COMMIT_DELAY);
    }

    /// Waits until it is over; `owed` says whether the follower owes an answer.
    pub(in crate::raft) async fn over(&mut self, owed: bool) {
        if !self.busy || (self.end.is_elapsed() && !owed) {
            return;
        }
        tokio::select! {
            biased;
            () = newer(&mut self.appended, self.sent) => {}
            () = &mut self.end, if !owed => {}
        }
    }
}

/// Waits until entries after `sent` are in the log, or there is none any more.
async fn newer(appended: &mut Appended, sent: Option<Index>) {
    while *appended.borrow_watched() <= sent && appended.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use openraft::async_runtime::watch::WatchSender;
    use openraft::type_config::TypeConfigExt;

    use super::*;
    use crate::raft::config::TypeConfig;

    #[tokio::test(start_paused = true)]
    async fn a_lull_ends_with_an_entry_or_a_while_after_the_last_answer() {
        let (log, appended) = TypeConfig::watch_channel(Some(3));
        let mut lull = Lull::new(appended);
        let is_over = |lull: &mut Lull, owed| lull.over(owed).now_or_never().is_some();
        assert!(is_over(&mut lull, false));
        lull.sent(2);
        assert!(is_over(&mut lull, true), "no entries came soon after others yet");
        lull.sent(3);
        assert!(!is_over(&mut lull, false) && !is_over(&mut lull, true));
        sleep(COMMIT_DELAY / 2).await;
        lull.answered();
        let answered = Instant::now();
        lull.over(false).await;
        assert!(answered.elapsed() >= COMMIT_DELAY && answered.elapsed() < 2 * COMMIT_DELAY);
        assert!(is_over(&mut lull, false), "until the next entries");
        assert!(!is_over(&mut lull, true), "while an answer is owed there is nothing but entries");
        lull.answered();
        lull.sent(3);
        assert!(!is_over(&mut lull, false));
        log.send(Some(2)).expect("it is heard");
        assert!(!is_over(&mut lull, false), "what was cut off is nothing new");
        log.send(Some(4)).expect("it is heard");
        assert!(is_over(&mut lull, false) && is_over(&mut lull, true));

        sleep(2 * COMMIT_DELAY).await;
        lull.sent(4);
        assert!(is_over(&mut lull, true), "these came late, so the next are not waited for");
        lull.answered();
        lull.sent(4);
        assert!(!is_over(&mut lull, true));
        drop(log);
        assert!(is_over(&mut lull, true), "nothing will come");
    }
}
