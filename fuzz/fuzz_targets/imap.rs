//! Coverage-guided fuzzing of `fife::fuzz::imap`, which says what it owns and what it holds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fife::fuzz::imap(data));
