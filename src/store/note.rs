//! Notes in a data directory: small files that are there as a whole or not at all.

use std::io;
use std::path::Path;

use crate::store::disk::{self, Disk, Open};

/// Writes a note, in place of the one before: durable when this returns. A crash leaves one of both.
pub(in crate::store) fn write(disk: &dyn Disk, path: &Path, text: &[u8]) -> io::Result<()> {
    let temp = path.with_extension("tmp");
    let file = disk.open(&temp, Open::Truncate)?;
    file.write_at(text, 0)?;
    file.sync()?;
    disk::replace(disk, &temp, path)
}
