//! Logs: segments, batches, records, recovery.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sagedb::fuzz::wal(bytes, &sagedb_fuzz::counting);
});
