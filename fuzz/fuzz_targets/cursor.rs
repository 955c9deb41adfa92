//! Cursors of scans, as clients send them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sagedb::fuzz::cursor(bytes, &sagedb_fuzz::counting);
});
