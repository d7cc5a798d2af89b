//! Coverage-guided fuzzing of `fife::fuzz::message`, which says what it owns and what it holds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fife::fuzz::message(data));
