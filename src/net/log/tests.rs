//! The form of lines, through a subscriber of this thread.

use std::io::{Read, Seek};

use super::*;

fn output(json: bool, file: &File) -> Arc<RwLock<Output>> {
    Arc::new(RwLock::new(Output { json, file: Some(file.try_clone().unwrap()) }))
}

/// The lines that `act` leaves.
fn lines(json: bool, act: impl FnOnce()) -> String {
    let mut file = tempfile::tempfile().unwrap();
    let lines = Lines { role: "smtp", host: "mail1".into(), output: output(json, &file) };
    tracing::subscriber::with_default(Registry::default().with(lines), act);
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// One line without its time.
fn line(json: bool, act: impl FnOnce()) -> String {
    let text = lines(json, act);
    let text = text.strip_suffix('\n').unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    if json {
        let mut object: Map<String, Value> = serde_json::from_str(text).unwrap();
        assert!(humantime::parse_rfc3339(object.remove("time").unwrap().as_str().unwrap()).is_ok());
        Value::Object(object).to_string()
    } else {
        text.split_once(' ').unwrap().1.to_owned()
    }
}

#[test]
fn a_text_line_is_logfmt() {
    let made = line(false, || tracing::info!(to = "a b", count = 3, ok = true, empty = "", "handed on"));
    assert_eq!(made, r#"level=info role=smtp host=mail1 msg="handed on" to="a b" count=3 ok=true empty="""#);
}

#[test]
fn what_a_peer_sent_cannot_forge_a_line() {
    let sent = "x\r\nlevel=error \u{1b}[31m\"\\";
    let made = line(false, || tracing::warn!(sent, "odd"));
    assert!(made.ends_with(r#"sent="x\r\nlevel=error \u{1b}[31m\"\\""#), "{made}");
    let made = line(true, || tracing::warn!(sent, "odd"));
    assert!(made.contains(r#""sent":"x\r\nlevel=error \u001b[31m\"\\""#), "{made}");
}

#[test]
fn the_field_message_is_the_mail_and_msg_the_text() {
    let made = line(false, || tracing::info!(message = %"0abc", "accepted"));
    assert_eq!(made, "level=info role=smtp host=mail1 msg=accepted message=0abc");
}

#[test]
fn spans_give_what_the_event_does_not() {
    let made = line(true, || {
        let _outer = tracing::info_span!("session", session = "s1", peer = "p").entered();
        let _inner = tracing::info_span!("transaction", message = "m1", peer = "q").entered();
        tracing::info!(session = "mine", "accepted");
    });
    let expected =
        r#"{"host":"mail1","level":"info","message":"m1","msg":"accepted","peer":"q","role":"smtp","session":"mine"}"#;
    assert_eq!(made, expected);
}

#[test]
fn a_long_value_is_cut_at_a_character() {
    let made = line(false, || tracing::info!(value = "é".repeat(VALUE_BYTES_MAX), "long"));
    assert!(made.len() < VALUE_BYTES_MAX + 100 && made.ends_with("é…"), "{made}");
}
