//! Every suite that boots the image, in one binary: two guests of different suites run side by side on two cores.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a fault in the set-up ends the test")]

mod boot;
mod faults;
mod install;
mod mounts;
mod power;
mod site;
mod tape;
mod update;
mod writes;
