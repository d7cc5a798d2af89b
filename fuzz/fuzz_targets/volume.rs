//! Coverage-guided fuzzing of `fife::fuzz::volume`, which says what it owns and what it holds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // How much was reached is for the driver on stable.
    fife::fuzz::volume(data);
});
