//! Tests of line framing.

use super::{Fault, Frame, Framer};

/// All frames of `input`, offered in pieces of `piece` octets as a connection would.
fn frames(input: &[u8], piece: usize) -> Vec<String> {
    let mut framer = Framer::new(8);
    let (mut buffer, mut out) = (Vec::new(), Vec::new());
    for part in input.chunks(piece) {
        buffer.extend_from_slice(part);
        loop {
            let (used, frame) = framer.next(&buffer);
            match frame {
                Frame::More => {}
                Frame::Line(line) => out.push(String::from_utf8_lossy(line).trim_end().to_owned()),
                Frame::Bad(Fault::TooLong) => out.push("too long".into()),
                Frame::Bad(Fault::Octets) => out.push("octets".into()),
            }
            let more = frame == Frame::More;
            buffer.drain(..used);
            if more {
                break;
            }
        }
        assert!(buffer.len() < 8 + piece, "what is kept is bounded");
    }
    out
}

#[test]
fn cuts_lines_however_they_come() {
    let check = |input: &[u8], expected: &[&str]| {
        for piece in 1..=input.len() {
            assert_eq!(frames(input, piece), expected, "{:?} in pieces of {piece}", String::from_utf8_lossy(input));
        }
    };
    check(b"QUIT\r\n", &["QUIT"]);
    check(b"a\r\nb\r\n\r\n", &["a", "b", ""]);
    check(b"123456\r\n", &["123456"]); // eight octets: the longest line
    check(b"1234567\r\nok\r\n", &["too long", "ok"]);
    check(b"123456789012345678901234567890\r\nok\r\n", &["too long", "ok"]);
    check(b"a\nb\r\n", &["octets", "b"]);
    check(b"a\rb\r\nc\r\n", &["octets", "c"]);
    check(b"a\r\r\nc\r\n", &["octets", "c"]);
    check(b"a\0\r\nc\r\n", &["octets", "c"]);
    check(b"\n", &["octets"]);
    check(b"no end", &[]);
}
