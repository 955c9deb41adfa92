//! One direction of one connection: reads, keeps what was read for as long as the link says, and
//! writes it.
//!
//! What waits is bounded in pieces of bounded size; beyond that nothing more is read, as a full
//! network would have it.

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::net::{Cut, Link, Wire, Wires};

/// The largest piece.
const PIECE_BYTES_MAX: usize = 64 * 1024;
/// The smallest piece that a limited rate makes.
const PIECE_BYTES_MIN: u64 = 512;
/// Pieces under way: up to 4 MiB a direction of a connection.
const PIECES_MAX: usize = 64;

/// What was read, and when it comes out at the other end.
struct Piece {
    due: Instant,
    /// Nothing: the end.
    bytes: Vec<u8>,
}

/// Carries everything `from` sends to `to`, after `first`, until it ends in order. An error means
/// that the connection broke.
pub(super) async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    first: Vec<u8>,
    (wires, wire): (&Wires, &Wire),
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let link = *wire.state.borrow();
    if !first.is_empty() {
        let piece = Piece { due: wires.due(link), bytes: first };
        sender.try_send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    }
    tokio::try_join!(read(from, sender, (wires, wire)), write(to, receiver, wire))?;
    Ok(())
}

async fn read(
    from: &TcpStream,
    pieces: mpsc::Sender<Piece>,
    (wires, wire): (&Wires, &Wire),
) -> io::Result<()> {
    let mut state = wire.state.subscribe();
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    loop {
        from.ready(Interest::READABLE).await?;
        passed(&mut state, wire).await;
        let link = *state.borrow();
        let length = match from.try_read(&mut buffer[..piece_length(link)]) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let piece = Piece { due: wires.due(link), bytes: buffer[..length].to_vec() };
        pieces.send(piece).await.map_err(broken)?;
        if length == 0 {
            return Ok(());
        }
    }
}

async fn write(to: &TcpStream, mut pieces: mpsc::Receiver<Piece>, wire: &Wire) -> io::Result<()> {
    let mut state = wire.state.subscribe();
    while let Some(piece) = pieces.recv().await {
        if piece.due > Instant::now() {
            wire.slowed.fetch_add(1, Ordering::Relaxed);
            sleep_until(piece.due).await;
        }
        passed(&mut state, wire).await;
        if piece.bytes.is_empty() {
            return socket2::SockRef::from(to).shutdown(std::net::Shutdown::Write);
        }
        let rate = state.borrow().bytes_per_second;
        if let Some(rate) = rate {
            wire.slowed.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                () = sleep_until(turn(wire, piece.bytes.len(), rate)) => {}
                // An error means that the net is gone, and this task with it.
                _ = state.wait_for(|link| link.bytes_per_second.is_none()) => {}
            }
        }
        write_all(to, &piece.bytes).await?;
    }
    Ok(())
}

/// Waits while the link is cut silently.
async fn passed(state: &mut watch::Receiver<Link>, wire: &Wire) {
    if state.borrow_and_update().cut == Cut::Silent {
        wire.holds();
        // An error means that the net is gone, and this task with it.
        state.wait_for(|link| link.cut != Cut::Silent).await.ok();
    }
}

/// How much is read at once: of a narrow link no more than passes in a tenth of a second.
fn piece_length(link: Link) -> usize {
    let Some(rate) = link.bytes_per_second else { return PIECE_BYTES_MAX };
    let length = usize::try_from((rate / 10).max(PIECE_BYTES_MIN)).unwrap_or(PIECE_BYTES_MAX);
    length.min(PIECE_BYTES_MAX)
}

/// When so many bytes have passed a narrow link, after everything that came before.
fn turn(wire: &Wire, bytes: usize, rate: u64) -> Instant {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let time = Duration::from_secs(1).saturating_mul(bytes)
        / u32::try_from(rate.max(1)).unwrap_or(u32::MAX);
    let mut busy = wire.busy.lock().unwrap_or_else(PoisonError::into_inner);
    *busy = (*busy).max(Instant::now()) + time;
    *busy
}

async fn write_all(to: &TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        to.writable().await?;
        match to.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
