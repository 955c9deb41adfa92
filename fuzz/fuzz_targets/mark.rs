//! The mark beside a log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sagedb::fuzz::mark(bytes, &sagedb_fuzz::counting);
});
