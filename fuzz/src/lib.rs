//! What all targets share: memory is measured, by an allocator that counts what a thread holds.

/// Fails if `work` ever holds more than `allowed` bytes.
///
/// # Panics
/// If it does.
pub fn counting(allowed: usize, work: &mut dyn FnMut()) {
    let held = allocation_counter::measure(work).bytes_max;
    assert!(held <= allowed as u64, "{held} bytes of memory, {allowed} are justified");
}
