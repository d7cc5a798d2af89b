//! Tests of dot-stuffing: tables, every published smuggling variant, every way to cut the input.

use super::{DotReader, DotWriter, Findings, Progress, TEXT_LINE_LEN_MAX};

/// Reads in one piece: the text, what was found, and how many octets were used if it ended.
fn read(input: &[u8], size_max: usize) -> (Vec<u8>, Findings, Option<usize>) {
    read_cut(input, size_max, input.len().max(1))
}

/// The same in pieces of `piece` octets.
fn read_cut(input: &[u8], size_max: usize, piece: usize) -> (Vec<u8>, Findings, Option<usize>) {
    let mut reader = DotReader::new(size_max);
    let mut text = Vec::new();
    let mut before = 0;
    for part in input.chunks(piece) {
        match reader.receive(part, &mut text) {
            Progress::More => before += part.len(),
            Progress::Done { used } => return (text, reader.findings(), Some(before + used)),
        }
    }
    (text, reader.findings(), None)
}

/// The input ends where expected and gives the text, however it is cut.
fn check(input: &[u8], text: &[u8], end: Option<usize>) -> Findings {
    let shown = String::from_utf8_lossy(input);
    let (got, findings, used) = read(input, 1 << 20);
    assert_eq!((got.as_slice(), used), (text, end), "{shown:?}");
    for piece in 1..=input.len() {
        assert_eq!(read_cut(input, 1 << 20, piece), (got.clone(), findings, used), "{shown:?} in pieces of {piece}");
    }
    findings
}

#[test]
fn ends_at_the_dot_and_leaves_the_rest() {
    let none = Findings::default();
    assert_eq!(check(b".\r\n", b"", Some(3)), none); // an empty message
    assert_eq!(check(b"a\r\n.\r\nQUIT\r\n", b"a\r\n", Some(6)), none);
    assert_eq!(check(b"a\r\n\r\n.\r\n.\r\n", b"a\r\n\r\n", Some(8)), none);
    assert_eq!(check(b"a\r\n", b"a\r\n", None), none);
    assert_eq!(check(b"a\r\n.", b"a\r\n", None), none);
    assert_eq!(check(b"a.\r\n.\r\n", b"a.\r\n", Some(7)), none); // a dot within the line
    assert!(check("ü\r\n.\r\n".as_bytes(), "ü\r\n".as_bytes(), Some(7)).eight_bit);
}

#[test]
fn takes_one_dot_from_the_start_of_a_line() {
    check(b"..\r\n.\r\n", b".\r\n", Some(7));
    check(b"...\r\n.\r\n", b"..\r\n", Some(8));
    check(b".a\r\n..b\r\n.\r\n", b"a\r\n.b\r\n", Some(12)); // not stuffed, but so RFC 5321 section 4.5.2 has it
    check(b"a..b\r\n.\r\n", b"a..b\r\n", Some(9));
}

#[test]
fn no_smuggled_end_is_taken_for_the_end() {
    // Published end-of-data variants ("SMTP smuggling", 2023, and its successors), each between text and a
    // smuggled envelope. None ends the message; each shows in the findings; the true end is found behind.
    let variants: &[&[u8]] = &[
        b"\n.\n",
        b"\n.\r\n",
        b"\n.\r",
        b"\r.\r",
        b"\r.\n",
        b"\r.\r\n",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\n\n.\n\n",
        b"\n\n.\r\n",
        b"\r\r.\r\r",
        b"\r\n.\r\r\n",
        b"\r\r\n.\r\r\n",
        b"\n\r.\n\r",
        b"\r\n\n.\n",
        b"\r\n\r.\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\0\r\n.\0\r\n",
        b"\r\0\n.\r\0\n",
        b"\r\n.\r\0\n",
        b"\n\0.\r\n",
        b"\r\n.\x00\n",
    ];
    for variant in variants {
        let smuggled = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nforged\r\n.\r\nQUIT\r\n";
        let input = [b"Subject: x\r\n\r\nhello", *variant, smuggled.as_slice()].concat();
        let end = input.len() - b"QUIT\r\n".len();
        for piece in 1..=input.len() {
            let (_, findings, used) = read_cut(&input, 1 << 20, piece);
            assert_eq!(used, Some(end), "{variant:?} in pieces of {piece}");
            assert!(findings.is_ambiguous(), "{variant:?} in pieces of {piece}");
        }
    }
}

#[test]
fn finds_what_is_wrong_with_the_text() {
    let lf = check(b"a\nb\r\n.\r\n", b"a\nb\r\n", Some(8));
    assert_eq!(lf, Findings { bare_lf: true, ..Findings::default() });
    let cr = check(b"a\rb\r\n.\r\n", b"a\rb\r\n", Some(8));
    assert_eq!(cr, Findings { bare_cr: true, ..Findings::default() });
    let crs = check(b"a\r\r\n.\r\n", b"a\r\r\n", Some(7));
    assert_eq!(crs, Findings { bare_cr: true, ..Findings::default() });
    let nul = check(b"a\0b\r\n.\r\n", b"a\0b\r\n", Some(8));
    assert_eq!(nul, Findings { nul: true, ..Findings::default() });
    let dot_cr = check(b".\ra\r\n.\r\n", b"\ra\r\n", Some(8));
    assert_eq!(dot_cr, Findings { bare_cr: true, ..Findings::default() });
}

#[test]
fn a_line_of_1000_octets_is_good_and_1001_is_long() {
    for (octets, long) in [(TEXT_LINE_LEN_MAX, false), (TEXT_LINE_LEN_MAX + 1, true)] {
        let line = [vec![b'x'; octets - 2], b"\r\n".to_vec()].concat();
        let input = [line.as_slice(), line.as_slice(), b".\r\n"].concat();
        for piece in [1, 7, 999, 1000, 1001, input.len()] {
            let (_, findings, _) = read_cut(&input, 1 << 20, piece);
            assert_eq!(findings.long_line, long, "{octets} octets in pieces of {piece}");
        }
    }
}

#[test]
fn reads_on_to_the_end_of_an_oversized_message() {
    let input = [b"0123456789\r\n".repeat(100).as_slice(), b".\r\nNOOP\r\n"].concat();
    for piece in [1, 5, 64, input.len()] {
        let (text, findings, used) = read_cut(&input, 100, piece);
        assert_eq!(used, Some(1203), "in pieces of {piece}");
        assert!(findings.too_big, "in pieces of {piece}");
        assert!(text.len() <= 100, "in pieces of {piece}");
    }
    let (text, findings, _) = read(&input, 1200); // exactly the limit
    assert_eq!((text.len(), findings.too_big), (1200, false));
}

#[test]
fn chunks_are_inspected_across_their_borders() {
    let read = |chunks: &[&[u8]]| {
        let mut reader = DotReader::unstuffed(1 << 20);
        let mut text = Vec::new();
        for chunk in chunks {
            assert_eq!(reader.receive(chunk, &mut text), Progress::More);
        }
        (text, reader.findings())
    };
    assert_eq!(read(&[b"a\r", b"\n.\r", b"\n..b\r\n"]), (b"a\r\n.\r\n..b\r\n".to_vec(), Findings::default()));
    assert!(read(&[b"a\r", b"b\r\n"]).1.bare_cr);
    assert!(read(&[b"a\r"]).1.bare_cr); // the message ends in a bare CR
    assert!(read(&[b"a", b"\nb"]).1.bare_lf);
}

/// Written in pieces of any size the text comes out the same, and reads back as it was.
fn check_written(text: &[u8], wire: &[u8]) {
    for piece in 1..=text.len().max(1) {
        let mut writer = DotWriter::new();
        let mut out = Vec::new();
        for part in text.chunks(piece) {
            writer.write(part, &mut out);
        }
        writer.finish(&mut out);
        assert_eq!(out, wire, "{:?} in pieces of {piece}", String::from_utf8_lossy(text));
    }
}

#[test]
fn stuffs_dots_and_ends_the_last_line() {
    check_written(b"", b".\r\n");
    check_written(b"a\r\n", b"a\r\n.\r\n");
    check_written(b"a", b"a\r\n.\r\n");
    check_written(b"a\n", b"a\n\r\n.\r\n");
    check_written(b"a\r", b"a\r\r\n.\r\n");
    check_written(b".", b"..\r\n.\r\n");
    check_written(b".\r\n.\r\n..\r\na.\r\n", b"..\r\n..\r\n...\r\na.\r\n.\r\n");
}

/// Whoever takes a bare LF or CR for a line end, or drops NULs, finds no end within.
#[test]
fn no_lenient_receiver_finds_an_end_within_what_is_written() {
    check_written(b"a\n.\nb\r\n", b"a\n..\nb\r\n.\r\n");
    check_written(b"a\r.\rb\r\n", b"a\r..\rb\r\n.\r\n");
    check_written(b"a\r\n.\rb\r\n", b"a\r\n..\rb\r\n.\r\n");
    check_written(b"a\r\n.\nb\r\n", b"a\r\n..\nb\r\n.\r\n");
    check_written(b"a\r\n\0.\r\nb\r\n", b"a\r\n\0..\r\nb\r\n.\r\n");
    check_written(b"a\n\0\0.\0\nb\r\n", b"a\n\0\0..\0\nb\r\n.\r\n");
    check_written(b"\0.\r\n", b"\0..\r\n.\r\n");
    check_written(b"a\0.\r\n", b"a\0.\r\n.\r\n"); // within a line a dot is a dot
}

#[test]
fn what_is_written_reads_back() {
    let mut seed = 1_u64;
    for _ in 0..20_000 {
        // Octets that matter, in any order (xorshift; the seed is the loop's, so a failure repeats).
        let mut text = Vec::new();
        for _ in 0..12 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            text.extend_from_slice(
                [b"\r\n".as_slice(), b".", b"a", b"\r\n.", b"..", "é".as_bytes()][usize::try_from(seed % 6).unwrap()],
            );
        }
        text.extend_from_slice(b"\r\n");
        let mut writer = DotWriter::new();
        let mut wire = Vec::new();
        writer.write(&text, &mut wire);
        writer.finish(&mut wire);
        wire.extend_from_slice(b"QUIT\r\n");
        let (got, findings, used) = read_cut(&wire, 1 << 20, 1 + usize::try_from(seed % 9).unwrap());
        assert_eq!(got, text);
        assert!(!findings.is_ambiguous());
        assert_eq!(used, Some(wire.len() - 6));
    }
}
