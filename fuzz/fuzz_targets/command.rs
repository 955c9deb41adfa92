//! Commands, entries and what else goes through a log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sagedb::fuzz::command(bytes, &sagedb_fuzz::counting);
});
