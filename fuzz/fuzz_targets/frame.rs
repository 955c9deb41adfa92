//! The frames of a connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sagedb::fuzz::frame(bytes, &sagedb_fuzz::counting);
});
