//! Which failed accepts are tried again at once.

use std::io;

use super::passes;

#[test]
fn only_errors_of_the_one_connection_are_tried_again_at_once() {
    let check = |errno: i32, at_once: bool| {
        let error = io::Error::from_raw_os_error(errno);
        assert_eq!(passes(&error), at_once, "{error}");
    };
    check(libc::ECONNABORTED, true); // the client left before its turn came
    check(libc::EINTR, true);
    check(libc::ENETUNREACH, true); // Linux passes errors of the new socket on (accept(2))
    check(libc::EINVAL, false); // the socket does not listen, and never will
    check(libc::EMFILE, false); // would spin: the connection stays in the backlog
    check(libc::ENFILE, false);
    check(libc::ENOBUFS, false);
    check(libc::ENOMEM, false);
}
