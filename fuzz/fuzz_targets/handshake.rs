//! The two messages that open a connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sagedb::fuzz::handshake(bytes, &sagedb_fuzz::counting);
});
