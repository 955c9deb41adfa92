//! One connection and what is under way on it. Knows nothing of links: it is told what may arrive.

use std::collections::VecDeque;
use std::task::Waker;

use crate::sim::net::Place;
use crate::sim::trace::Trace;

/// One connection: the direction from each of its ends to the other.
pub(in crate::sim::net) struct Conn {
    pub(in crate::sim::net) ends: [Place; 2],
    pub(in crate::sim::net) ways: [Way; 2],
}

/// What travels.
pub(in crate::sim::net) enum Piece {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// One direction.
#[expect(clippy::struct_excessive_bools, reason = "three ends of a direction, not one")]
#[derive(Default)]
pub(in crate::sim::net) struct Way {
    pub(in crate::sim::net) flight: VecDeque<(u64, Piece)>,
    pub(in crate::sim::net) arrived: VecDeque<u8>,
    /// Bytes under way or not read yet.
    pub(in crate::sim::net) held: usize,
    /// The sender has said that nothing more comes, or is gone.
    pub(in crate::sim::net) closed: bool,
    /// That has arrived.
    pub(in crate::sim::net) ended: bool,
    /// The sending end is of no use any more.
    pub(in crate::sim::net) broken: bool,
    pub(in crate::sim::net) reader: Option<Waker>,
    pub(in crate::sim::net) writer: Option<Waker>,
}

impl Way {
    /// Wakes whoever waits for it.
    pub(in crate::sim::net) fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Conn {
    /// Both ends learn that it is broken.
    pub(in crate::sim::net) fn break_off(&mut self) {
        for way in &mut self.ways {
            way.broken = true;
            way.flight.clear();
            way.wake();
        }
    }

    /// Whether nobody has to do with it any more.
    pub(in crate::sim::net) fn is_over(&self) -> bool {
        self.ways.iter().all(|way| way.closed && (way.broken || way.flight.is_empty()))
    }

    /// Delivers what is due of one direction.
    pub(in crate::sim::net) fn deliver(
        &mut self,
        id: u64,
        side: usize,
        now: u64,
        trace: &mut Trace,
    ) {
        let gone = self.ways[1 - side].closed;
        let mut reset = false;
        let way = &mut self.ways[side];
        while let Some((due, _)) = way.flight.front()
            && *due <= now
        {
            match way.flight.pop_front() {
                // Who has closed wants nothing more, and says so.
                Some((_, Piece::Bytes(_))) if gone => reset = true,
                Some((_, Piece::Bytes(bytes))) => {
                    trace.bytes(now, (id, side), &bytes);
                    way.arrived.extend(bytes);
                }
                Some((_, Piece::End)) => {
                    trace.bytes(now, (id, side), b"end");
                    way.ended = true;
                }
                Some((_, Piece::Reset)) => reset = true,
                None => break,
            }
            if let Some(reader) = way.reader.take() {
                reader.wake();
            }
        }
        if reset {
            trace.bytes(now, (id, side), b"reset");
            self.break_off();
        }
    }
}
