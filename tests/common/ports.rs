//! Free ports for real processes, so that tests and harness runs on one machine never meet.
//!
//! Ports come in blocks below the range that the system takes for outgoing connections, so that a
//! server that was killed finds its port free when it is started again. A block is held by a lock
//! on a file in the temporary directory: the system lets go of it however its holder ends.
//! Shared with `jepsen/`.

use std::fs::File;
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, TcpListener};

/// The first port of the first block.
const FIRST: u16 = 10_000;
/// Ports in one block: `sage dev` alone wants 101 and one for each replica.
const BLOCK: u16 = 200;
/// Blocks; the last ends below 32,768, where outgoing ports begin on Linux.
const BLOCKS: u16 = 100;

/// One block of ports, held until dropped.
#[derive(Debug)]
pub(crate) struct Ports {
    first: u16,
    taken: u16,
    _held: File,
}

impl Ports {
    /// Holds a block in which no port is in use.
    pub(crate) fn hold() -> Self {
        let start = std::process::id() % u32::from(BLOCKS);
        let start = u16::try_from(start).expect("less than BLOCKS");
        let blocks = (0..BLOCKS).map(|step| (start + step) % BLOCKS);
        let mut held = blocks.filter_map(Self::hold_block);
        held.next().expect("no block of free ports is left: are old servers still running?")
    }

    fn hold_block(block: u16) -> Option<Self> {
        let directory = std::env::temp_dir().join("sage-ports");
        std::fs::create_dir_all(&directory).ok()?;
        let path = directory.join(format!("{block}.lock"));
        let held = OpenOptions::new().create(true).append(true).open(path).ok()?;
        held.try_lock().ok()?;
        let first = FIRST + block * BLOCK;
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        (first..first + BLOCK).all(free).then_some(Self { first, taken: 0, _held: held })
    }

    /// A port that was not given out before.
    pub(crate) fn take(&mut self) -> u16 {
        assert!(self.taken < BLOCK, "all {BLOCK} ports of the block are taken");
        self.taken += 1;
        self.first + self.taken - 1
    }
}
