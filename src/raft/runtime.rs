//! What openraft runs on in a simulation: tokio, less what is random in it.
//!
//! openraft draws its election timeouts from its runtime's generator: here it is seeded from
//! [`host::random`]. And tokio's `watch` wakes its receivers in an order that it draws from a
//! generator of its own, which only an unstable build of tokio lets one seed: so [`Watch`] takes its
//! place, which wakes them in the order in which they came. openraft's `select` polls in order
//! anyway; its other channels are tokio's, which have nothing random in them.
//!
//! Outside a simulation, in other tests, it does what tokio's runtime does.

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use openraft::async_runtime::watch::{self, RecvError, SendError};
use openraft::impls::TokioRuntime;
use openraft::{AsyncRuntime, OptionalSend};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;

use crate::types::host;

/// tokio, with a seeded generator and an orderly [`Watch`].
#[derive(Debug)]
pub(in crate::raft) struct Deterministic(TokioRuntime);

type Tokio = TokioRuntime;

impl AsyncRuntime for Deterministic {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = <Tokio as AsyncRuntime>::Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = StdRng;
    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Tokio::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Tokio::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Tokio::is_panic(join_error)
    }

    fn thread_rng() -> StdRng {
        StdRng::seed_from_u64(host::random())
    }

    fn new(threads: usize) -> Self {
        Self(Tokio::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    async fn spawn_blocking<F, T>(work: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        crate::store::blocking::blocking(work).await
    }
}

/// A value that can be watched; whoever waits for it to change is woken in turn.
pub(in crate::raft) struct Watch;

struct Watched<T> {
    value: RwLock<T>,
    version: AtomicU64,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    changed: Notify,
}

impl<T> Watched<T> {
    fn read(&self) -> Ref<'_, T> {
        Ref(self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }
}

/// The value, which does not change while it is held.
pub(in crate::raft) struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The side that changes the value.
pub(in crate::raft) struct Sender<T>(Arc<Watched<T>>);

/// The side that watches it.
pub(in crate::raft) struct Receiver<T> {
    watched: Arc<Watched<T>>,
    seen: u64,
}

impl<T> Sender<T> {
    fn receiver(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::SeqCst);
        Receiver { watched: Arc::clone(&self.0), seen: self.0.version() }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.watched.receivers.fetch_add(1, Ordering::SeqCst);
        Self { watched: Arc::clone(&self.watched), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.watched.receivers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl watch::Watch for Watch {
    type Sender<T: OptionalSend + Sync> = Sender<T>;
    type Receiver<T: OptionalSend + Sync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + Sync>(init: T) -> (Sender<T>, Receiver<T>) {
        let watched = Arc::new(Watched {
            value: RwLock::new(init),
            version: AtomicU64::new(0),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
            changed: Notify::new(),
        });
        let sender = Sender(watched);
        let receiver = sender.receiver();
        (sender, receiver)
    }
}

impl<T: OptionalSend + Sync> watch::WatchSender<Watch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::SeqCst) == 0 {
            return Err(SendError(value));
        }
        self.send_if_modified(|held| {
            *held = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let modified = {
            let mut value = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
            let modified = modify(&mut value);
            if modified {
                self.0.version.fetch_add(1, Ordering::SeqCst);
            }
            modified
        };
        if modified {
            self.0.changed.notify_waiters();
        }
        modified
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.0.read()
    }

    fn subscribe(&self) -> Receiver<T> {
        self.receiver()
    }
}

impl<T: OptionalSend + Sync> watch::WatchReceiver<Watch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            // It hears of every change from here on, also before it is polled.
            let changed = self.watched.changed.notified();
            let version = self.watched.version();
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if self.watched.senders.load(Ordering::SeqCst) == 0 {
                return Err(RecvError(()));
            }
            changed.await;
        }
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.watched.read()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.watched.read();
        self.seen = self.watched.version();
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use openraft::async_runtime::watch::{Watch as _, WatchReceiver as _, WatchSender as _};

    use super::*;

    #[tokio::test]
    async fn those_who_watch_are_woken_in_the_order_in_which_they_came() {
        let (sender, receiver) = Watch::channel(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for who in 0..32 {
            let (mut receiver, woken) = (receiver.clone(), Arc::clone(&woken));
            tasks.push(tokio::spawn(async move {
                receiver.changed().await.expect("there is a sender");
                woken.lock().expect("no panic").push((who, *receiver.borrow_watched()));
            }));
            tokio::task::yield_now().await;
        }
        sender.send(7).expect("there are receivers");
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(
            *woken.lock().expect("no panic"),
            (0..32).map(|who| (who, 7)).collect::<Vec<_>>()
        );
    }

    #[tokio::test]
    async fn a_watch_ends_with_its_last_side() {
        let (sender, mut receiver) = Watch::channel(0);
        assert!(!sender.send_if_modified(|_| false));
        sender.clone().send(1).expect("there is a receiver");
        assert_eq!((receiver.changed().await.is_ok(), *receiver.borrow_and_update()), (true, 1));
        let other = sender.subscribe();
        drop(sender);
        assert!(receiver.changed().await.is_err() && other.clone().changed().await.is_err());
        let (sender, receiver) = Watch::channel(0);
        drop(receiver);
        assert!(sender.send(1).is_err());
    }
}
