//! Coverage-guided fuzzing of `fife::fuzz::pop3`, which says what it owns and what it holds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fife::fuzz::pop3(data));
