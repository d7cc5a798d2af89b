//! fife-qemu-tests.
