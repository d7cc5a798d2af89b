//! Bytes become whole commands, within bounds, however they are cut.

use bytes::Bytes;

use crate::pop_imap::imap::frame::{Fault, Frame, Framer, Mode, tag_of};

const APPEND_BYTES_MAX: usize = 1000;

/// What the framer gives for this input, fed at once and byte by byte: both must be the same.
fn check(known: bool, input: &[u8], expected: &[Frame]) {
    for piece in [input.len().max(1), 1, 7] {
        let mut framer = Framer::new(APPEND_BYTES_MAX);
        if known {
            framer.authenticated();
        }
        let mut given = Vec::new();
        for bytes in input.chunks(piece) {
            framer.receive(bytes);
            while let Some(frame) = framer.next(Mode::Command) {
                given.push(frame);
            }
        }
        assert_eq!(given, expected, "pieces of {piece}: {:?}", String::from_utf8_lossy(input));
    }
}

fn whole(text: &str) -> Frame {
    Frame::Complete(Bytes::copy_from_slice(text.as_bytes()))
}

fn refused(tag: &str, fault: Fault) -> Frame {
    Frame::Refused { tag: Some(Bytes::copy_from_slice(tag.as_bytes())), fault }
}

#[test]
fn commands_are_cut_at_crlf_and_joined_over_literals() {
    check(false, b"a NOOP\r\nb NOOP\r\n", &[whole("a NOOP\r\n"), whole("b NOOP\r\n")]);
    check(false, b"a NOOP", &[]);
    check(
        false,
        b"a LOGIN {2}\r\nu1 {3+}\r\npwd\r\n",
        &[Frame::LiteralAwaited, whole("a LOGIN {2}\r\nu1 {3+}\r\npwd\r\n")],
    );
    // A literal may hold line ends and what looks like a literal.
    check(true, b"a LOGIN {4+}\r\n\r\n{9 x\r\n", &[whole("a LOGIN {4+}\r\n\r\n{9 x\r\n")]);
    check(true, b"a X {0}\r\n\r\n", &[Frame::LiteralAwaited, whole("a X {0}\r\n\r\n")]);
    // No literal: the braces do not end the line, or hold no 32-bit number.
    check(true, b"a X {5} \r\n", &[whole("a X {5} \r\n")]);
    check(
        true,
        b"a X {}\r\nb X {-1}\r\nc X {12345678901}\r\n",
        &[whole("a X {}\r\n"), whole("b X {-1}\r\n"), whole("c X {12345678901}\r\n")],
    );
}

#[test]
fn a_line_that_ends_in_a_bare_line_feed_is_refused_and_the_next_one_taken() {
    check(false, b"a NOOP\nb NOOP\r\n", &[refused("a", Fault::BareLineFeed), whole("b NOOP\r\n")]);
    check(false, b"\n", &[Frame::Refused { tag: None, fault: Fault::BareLineFeed }]);
    check(true, b"a X {3}\nb NOOP\r\n", &[refused("a", Fault::BareLineFeed), whole("b NOOP\r\n")]);
}

#[test]
fn strangers_get_small_literals_and_lines_only() {
    check(false, b"a LOGIN {1025}\r\n", &[refused("a", Fault::LiteralTooLong)]);
    check(false, b"a LOGIN {4294967295+}\r\n", &[refused("a", Fault::LiteralTooLong)]);
    // Many small ones are no way around.
    let mut many = b"a LOGIN".to_vec();
    for _ in 0..13 {
        many.extend_from_slice(b" {1000+}\r\n");
        many.extend_from_slice(&[b'x'; 1000]);
    }
    let mut framer = Framer::new(APPEND_BYTES_MAX);
    framer.receive(&many);
    assert_eq!(framer.next(Mode::Command), Some(refused("a", Fault::LiteralTooLong)));

    let mut framer = Framer::new(APPEND_BYTES_MAX);
    framer.receive(b"a LOGIN ");
    framer.receive(&[b'x'; 9000]);
    assert_eq!(framer.next(Mode::Command), Some(refused("a", Fault::LineTooLong)));
    assert!(framer.is_empty(), "nothing of it is kept");
}

#[test]
fn too_long_literals_of_known_users_are_read_on_to_their_end() {
    let mut input = b"a APPEND x {1001}\r\nb NOOP\r\nc APPEND x {1001+}\r\n".to_vec();
    input.extend_from_slice(&[b'm'; 1001]);
    input.extend_from_slice(b" {2+}\r\n\r\n\r\nd NOOP\r\n");
    check(
        true,
        &input,
        &[
            refused("a", Fault::LiteralTooLong),
            whole("b NOOP\r\n"),
            refused("c", Fault::LiteralTooLong),
            whole("d NOOP\r\n"),
        ],
    );
    // What only APPEND may have, others may not.
    check(true, b"a SELECT {131073}\r\n", &[refused("a", Fault::LiteralTooLong)]);
    check(true, b"a APPEND x {1000}\r\n", &[Frame::LiteralAwaited]);
}

#[test]
fn too_long_lines_of_known_users_are_read_on_to_their_end() {
    let mut input = b"a X ".to_vec();
    input.extend_from_slice(&vec![b'x'; 70_000]);
    input.extend_from_slice(b"\r\nb NOOP\r\n");
    check(true, &input, &[refused("a", Fault::LineTooLong), whole("b NOOP\r\n")]);
}

#[test]
fn bare_lines_have_no_literals() {
    let mut framer = Framer::new(APPEND_BYTES_MAX);
    framer.receive(b"AHUxAHB3 {5}\r\nDONE\r\n");
    assert_eq!(framer.next(Mode::Line), Some(whole("AHUxAHB3 {5}")));
    assert_eq!(framer.next(Mode::Line), Some(whole("DONE")));
    assert_eq!(framer.next(Mode::Line), None);
}

#[test]
fn tags_are_what_rfc_3501_says() {
    let tag = |command: &[u8]| tag_of(command).map(|tag| String::from_utf8(tag.to_vec()).unwrap());
    assert_eq!(tag(b"a1 NOOP\r\n"), Some("a1".into()));
    assert_eq!(tag(b"A.[]-~ NOOP\r\n"), Some("A.[]-~".into()));
    for none in [
        b" NOOP\r\n".as_slice(),
        b"\r\n",
        b"* OK\r\n",
        b"+ OK\r\n",
        b"a(b NOOP\r\n",
        b"\"a\" NOOP\r\n",
        b"\x01 NOOP\r\n",
    ] {
        assert_eq!(tag(none), None, "{none:?}");
    }
}

#[test]
fn a_message_that_is_given_up_is_dropped_to_its_end_and_the_next_command_taken() {
    let message = 200_000;
    let start = format!("a APPEND x {{{message}+}}\r\n");
    let end = b"\r\nb NOOP\r\n";
    // Given up when so much of the message and of what follows has come.
    for come in [message / 2 + 131_072, message - 1, message, message + 1, message + 2, message + end.len()] {
        let mut framer = Framer::new(1_000_000);
        framer.authenticated();
        framer.receive(start.as_bytes());
        assert_eq!((framer.next(Mode::Command), framer.held()), (None, 0));
        let rest = [vec![b'x'; message], end.to_vec()].concat();
        let come = come.min(rest.len());
        framer.receive(&rest[..come]);
        assert_eq!(framer.held(), start.len() + come);
        framer.give_up();
        assert_eq!(framer.held(), 0);
        framer.receive(&rest[come..]);
        let next = [framer.next(Mode::Command), framer.next(Mode::Command), framer.next(Mode::Command)];
        assert_eq!(next, [Some(refused("a", Fault::NoRoom)), Some(whole("b NOOP\r\n")), None], "{come}");
    }
}
