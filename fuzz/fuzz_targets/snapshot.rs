//! Snapshot files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sagedb::fuzz::snapshot(bytes, &sagedb_fuzz::counting);
});
