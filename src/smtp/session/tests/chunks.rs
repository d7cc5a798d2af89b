//! Dialogues about BDAT (RFC 3030).

use super::{UP_TO_EHLO_REPLY, mx, unescape};

#[test]
fn chunks_make_a_message() {
    let delivered = mx(&format!(
        "C: EHLO c.test
        {UP_TO_EHLO_REPLY}
        P: MAIL FROM:<s@elsewhere.test>
        P: RCPT TO:<u1@example.test>
        R: BDAT 13\\r\\nSubject: a\\r\\n\\rBDAT 3\\r\\n\\n.\\rBDAT 1\\r\\n\\nBDAT 0 LAST\\r\\n
        S: 250 2.1.0
        S: 250 2.1.5
        S: 250 2.0.0 13 octets
        S: 250 2.0.0 3 octets
        S: 250 2.0.0 1 octets
        S: 250 2.0.0 delivered
        M: \\r\\nSubject: a\\r\\n\\r\\n.\\r\\n"
    ));
    assert_eq!(&delivered[0].content[..], b"Subject: a\r\n\r\n.\r\n");
}

#[test]
fn chunks_and_data_are_not_mixed() {
    mx(&format!(
        "C: EHLO c.test
        {UP_TO_EHLO_REPLY}
        P: MAIL FROM:<s@elsewhere.test>
        P: RCPT TO:<u1@example.test>
        R: BDAT 2\\r\\n\\r\\n
        S: 250
        S: 250
        S: 250
        C: DATA
        S: 503 5.5.1 chunks
        C: RCPT TO:<u2@example.test>
        S: 503 5.5.1 chunks
        C: MAIL FROM:<>
        S: 503 5.5.1
        C: NOOP
        S: 250
        C: RSET
        S: 250
        C: MAIL FROM:<>
        S: 250"
    ));
}

#[test]
fn a_refused_chunk_is_read_all_the_same() {
    // Its octets look like commands; none of them may be taken for one.
    mx("C: HELO c.test
        S: 250
        R: BDAT 6\\r\\nQUIT\\r\\nNOOP\\r\\n
        S: 503 5.5.1
        S: 250
        C: MAIL FROM:<>
        S: 250
        R: BDAT 6 LAST\\r\\nQUIT\\r\\nNOOP\\r\\n
        S: 554 5.5.1
        S: 250");
    // One of unknown length cannot be read past.
    mx("C: BDAT x
        S: 501 5.5.4
        X");
    // After a failed chunk those that are on the way are read and refused (RFC 3030 section 2).
    mx(&format!(
        "C: EHLO c.test
        {UP_TO_EHLO_REPLY}
        P: MAIL FROM:<s@elsewhere.test>
        P: RCPT TO:<u1@example.test>
        P: BDAT 10002
        R: {}BDAT 6 LAST\\r\\nQUIT\\r\\nNOOP\\r\\n
        S: 250
        S: 250
        S: 552 5.3.4
        S: 503 5.5.1
        S: 250",
        "x".repeat(10_002)
    ));
}

#[test]
fn chunks_hide_no_line_ends() {
    for text in ["a\\nb\\r\\n", "a\\rb\\r\\n", "ab\\0\\r\\n", "abcde\\r"] {
        mx(&format!(
            "C: EHLO c.test
            {UP_TO_EHLO_REPLY}
            P: MAIL FROM:<s@elsewhere.test>
            P: RCPT TO:<u1@example.test>
            R: BDAT {} LAST\\r\\n{text}
            S: 250
            S: 250
            S: 550 5.6.0",
            unescape(text).len()
        ));
    }
}
