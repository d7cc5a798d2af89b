//! Dialogues about AUTH (RFC 4954) and what is asked of a message before it is sent (RFC 6409).

use super::{Personality, UP_TO_EHLO_REPLY, World, run, submission};

/// `\0u1@example.test\0secret`, and with `wrong` for the password.
const GOOD: &str = "AHUxQGV4YW1wbGUudGVzdABzZWNyZXQ=";
const WRONG: &str = "AHUxQGV4YW1wbGUudGVzdAB3cm9uZw==";

const SUBMISSION_EHLO: &str = "C: EHLO c.test
    S: 250-mx
    S: 250-PIPELINING
    S: 250-8BITMIME
    S: 250-SMTPUTF8
    S: 250-SIZE
    S: 250-CHUNKING
    S: 250-DSN
    S: 250-STARTTLS
    S: 250-AUTH PLAIN LOGIN
    S: 250 ENHANCEDSTATUSCODES";

#[test]
fn users_sign_in_before_they_send() {
    let delivered = submission(&format!(
        "{SUBMISSION_EHLO}
        C: MAIL FROM:<u1@example.test>
        S: 530 5.7.0
        C: VRFY u1
        S: 530 5.7.0
        R: BDAT 6 LAST\\r\\nQUIT\\r\\n
        S: 530 5.7.0
        C: AUTH PLAIN {GOOD}
        S: 235 2.7.0
        C: AUTH PLAIN {GOOD}
        S: 503 5.5.1
        C: MAIL FROM:<u2@example.test>
        S: 553 5.7.1
        C: MAIL FROM:<u1@example.test> AUTH=<>
        S: 250
        C: RCPT TO:<someone@elsewhere.test>
        S: 550 5.7.1 relaying denied
        C: RCPT TO:<u2@example.test>
        S: 250
        C: DATA
        S: 354
        C: Subject: no date
        C:
        C: .
        S: 250
        M: with ESMTPA\\r\\n
        M: \\r\\nDate: Tue, 24 Nov 2026 03:31:05 +0000\\r\\nMessage-ID: <0000000000009@mx.example.test>\\r\\nSubject: no date\\r\\n\\r\\n"
    ));
    assert_eq!(delivered.len(), 1);
}

#[test]
fn what_the_users_program_wrote_is_kept() {
    let delivered = submission(&format!(
        "{SUBMISSION_EHLO}
        C: AUTH PLAIN {GOOD}
        S: 235
        C: MAIL FROM:<>
        S: 250
        C: RCPT TO:<u2@example.test>
        S: 250
        C: DATA
        S: 354
        P: date: Mon, 23 Nov 2026 10:00:00 +0800
        P: Message-Id: <a@b>
        P:
        C: .
        S: 250"
    ));
    assert_eq!(String::from_utf8_lossy(&delivered[0].trace).matches(':').count(), 3, "Received alone, with its time");
}

#[test]
fn sasl_exchanges_are_strict() {
    let check = |dialogue: &str| {
        submission(&format!("{SUBMISSION_EHLO}\n{dialogue}"));
    };
    check(&format!("C: AUTH PLAIN\nS: 334\nC: {GOOD}\nS: 235"));
    check(&format!("C: auth plain {GOOD}\nS: 235"));
    check("C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dTFAZXhhbXBsZS50ZXN0\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\nS: 235");
    check("C: AUTH LOGIN dTFAZXhhbXBsZS50ZXN0\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\nS: 235");
    check("C: AUTH LOGIN\nS: 334\nC: *\nS: 501 5.7.0\nC: NOOP\nS: 250");
    check("C: AUTH PLAIN ====\nS: 501 5.5.2");
    check("C: AUTH PLAIN =\nS: 501 5.5.2");
    check("C: AUTH PLAIN AGEAYgBj\nS: 501 5.5.2"); // one NUL too many
    check("C: AUTH PLAIN dTIAdTFAZXhhbXBsZS50ZXN0AHNlY3JldA==\nS: 501 5.5.2"); // for another (u2)
    check("C: AUTH PLAIN AHUxQGV4YW1wbGUudGVzdAA=\nS: 535 5.7.8"); // no password: never an anonymous bind
    check("C: AUTH CRAM-MD5\nS: 504 5.5.4");
    check("C: AUTH\nS: 501 5.5.4");
    check("C: AUTH PLAIN\nS: 334\nR: x\\n\nS: 500 5.5.2\nC: NOOP\nS: 250");
    check(&format!("C: AUTH PLAIN {}\nS: 501 5.5.2", "A".repeat(10_000)));
    check(&format!("C: AUTH PLAIN {}\nS: 500 5.5.2", "A".repeat(13_000)));
}

#[test]
fn guessing_passwords_ends_the_session() {
    submission(&format!(
        "{SUBMISSION_EHLO}
        C: AUTH PLAIN {WRONG}
        S: 535 5.7.8
        C: AUTH PLAIN {WRONG}
        S: 535 5.7.8
        C: AUTH PLAIN {WRONG}
        S: 535 5.7.8
        S: 421 4.7.0
        X"
    ));
}

#[test]
fn passwords_are_not_asked_for_in_the_clear() {
    let mut world = World::new(Personality::Submission, false);
    run(
        &mut world,
        &format!(
            "C: EHLO c.test
            {UP_TO_EHLO_REPLY}
            C: AUTH PLAIN {GOOD}
            S: 538 5.7.11
            C: STARTTLS
            S: 220
            C: EHLO c.test
            S: 250-mx
            S: 250-PIPELINING
            S: 250-8BITMIME
            S: 250-SMTPUTF8
            S: 250-SIZE
            S: 250-CHUNKING
            S: 250-DSN
            S: 250-AUTH PLAIN LOGIN
            S: 250 ENHANCEDSTATUSCODES
            C: AUTH PLAIN {GOOD}
            S: 235
            C: MAIL FROM:<u1@example.test>
            S: 250
            C: RCPT TO:<u1@example.test>
            S: 250
            C: DATA
            S: 354
            C: .
            S: 250
            M: with ESMTPSA (TLS"
        ),
    );
}
