//! fife-image.
fn main() {}
