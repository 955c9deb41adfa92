//! The messages between processes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sagedb::fuzz::peer(bytes, &sagedb_fuzz::counting);
});
