//! Commands carried out against a real store, as scripts of several clients of one account.
//!
//! `A>` client A (or B) sends a command; `A<` is the next line it is told, `A…` skips lines up to one that begins so; `A!` takes
//! what IDLE would push now. In commands `<<text>>` is a non-synchronizing literal with `\r\n` spelled out; in answers `#`
//! stands for digits, `…` at the end for the rest, and literals are shown as `<<text>>`. At the end nothing more may be said.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::address::Address;
use crate::pop_imap::imap::out::Out;
use crate::pop_imap::imap::run::{self, Work};
use crate::pop_imap::imap::serve::tell_changes;
use crate::pop_imap::imap::session::{Policy, Session, Step, User};
use crate::pop_imap::store::{Settings, Store};

struct Client {
    session: Session,
    out: Out<Vec<u8>>,
    lines: Vec<String>,
}

impl Client {
    fn new() -> Self {
        let policy = Policy { starttls: false, encrypted: true, cleartext_login: false, append_bytes_max: 1_000_000 };
        let mut session = Session::new(policy);
        let user = User { account: [1; 16], address: "u1@example.test".parse::<Address>().unwrap() };
        session.logged_in(&mut Vec::new(), b"", user);
        Self { session, out: Out::new(Vec::new(), Duration::MAX, None), lines: Vec::new() }
    }

    async fn send(&mut self, store: &Store, command: &str) {
        self.session.receive(literals(command).as_bytes());
        self.session.receive(b"\r\n");
        loop {
            match self.session.next(&mut self.out.buffer) {
                Step::Read => break,
                Step::Run { tag, command } => {
                    let mut work = Work { store, session: &mut self.session, out: &mut self.out, tag };
                    run::run(&mut work, command).await.unwrap();
                }
                Step::StartTls => panic!("not offered"),
                Step::Close => {
                    self.out.buffer.extend_from_slice(b"(closed)\r\n");
                    break;
                }
            }
        }
        self.collect().await;
    }

    async fn collect(&mut self) {
        self.out.flush().await.unwrap();
        let said = String::from_utf8(std::mem::take(&mut self.out.writer)).unwrap();
        self.lines.extend(split(&said));
    }

    fn take(&mut self, expected: &str, context: &str) {
        assert!(!self.lines.is_empty(), "{context}: {expected:?} expected, nothing said");
        let line = self.lines.remove(0);
        assert!(fits(expected, &line), "{context}: expected {expected:?}, said {line:?}, then {:?}", self.lines);
    }
}

/// `<<a\r\nb>>` becomes a literal.
fn literals(command: &str) -> String {
    let mut wire = String::new();
    let mut rest = command;
    while let Some((before, after)) = rest.split_once("<<") {
        let (text, after) = after.split_once(">>").unwrap();
        let text = text.replace("\\r", "\r").replace("\\n", "\n");
        wire.push_str(&format!("{before}{{{}+}}\r\n{text}", text.len()));
        rest = after;
    }
    wire + rest
}

/// Responses, one a line, literals shown as `<<…>>`.
fn split(said: &str) -> Vec<String> {
    let (mut lines, mut line, mut rest) = (Vec::new(), String::new(), said);
    while let Some((head, tail)) = rest.split_once("\r\n") {
        rest = tail;
        let literal = head.strip_suffix('}').and_then(|head| head.rsplit_once('{'));
        if let Some((before, length)) = literal
            && let Ok(length) = length.parse::<usize>()
        {
            let (text, tail) = rest.split_at(length);
            line.push_str(&format!("{before}<<{}>>", text.replace('\r', "\\r").replace('\n', "\\n")));
            rest = tail;
        } else {
            line.push_str(head);
            lines.push(std::mem::take(&mut line));
        }
    }
    assert!(rest.is_empty() && line.is_empty(), "{said:?}");
    lines
}

fn fits(expected: &str, line: &str) -> bool {
    let (expected, open) = expected.strip_suffix('…').map_or((expected, false), |start| (start, true));
    let mut given = line.chars().peekable();
    for letter in expected.chars() {
        if letter == '#' {
            if given.next_if(char::is_ascii_digit).is_none() {
                return false;
            }
            while given.next_if(char::is_ascii_digit).is_some() {}
        } else if given.next() != Some(letter) {
            return false;
        }
    }
    open || given.peek().is_none()
}

fn check(script: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Settings::default()).unwrap();
        let mut clients: BTreeMap<&str, Client> = BTreeMap::new();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, rest) = line.split_at(1);
            let client = clients.entry(name).or_insert_with(Client::new);
            let sign = rest.chars().next().unwrap();
            let text = rest.trim_start_matches(sign).trim_start();
            match sign {
                '>' => {
                    assert!(client.lines.is_empty(), "before {line:?} these were said: {:?}", client.lines);
                    client.send(&store, text).await;
                }
                '<' => client.take(text, script),
                '…' => {
                    while client.lines.first().is_some_and(|said| !fits(&format!("{text}…"), said)) {
                        client.lines.remove(0);
                    }
                    client.take(&format!("{text}…"), script);
                }
                '!' => {
                    tell_changes(&mut client.session, &mut client.out.buffer);
                    client.collect().await;
                }
                _ => panic!("{line}"),
            }
        }
        for (name, client) in clients {
            assert!(client.lines.is_empty(), "{name} was told more: {:?}", client.lines);
        }
    });
}

/// Three messages in INBOX; A has it selected.
const THREE: &str = r"
    A> a1 APPEND INBOX (\Seen) <<From: Ann <ann@x>\r\nSubject: one\r\nDate: 1 Feb 2024 10:00:00 +0000\r\n\r\nfirst body\r\n>>
    A< a1 OK [APPENDUID # 1] Append completed
    A> a2 APPEND INBOX <<From: Bob <bob@x>\r\nSubject: two\r\nDate: 2 Feb 2024 10:00:00 +0000\r\n\r\nsecond body\r\n>>
    A< a2 OK [APPENDUID # 2] Append completed
    A> a3 APPEND INBOX (\Flagged $Work) <<From: Cy <cy@x>\r\nSubject: three\r\nDate: 3 Feb 2024 10:00:00 +0000\r\n\r\nthird\r\n>>
    A< a3 OK [APPENDUID # 3] Append completed
    A> a4 SELECT INBOX
    A… a4 OK
";

fn check_three(script: &str) {
    check(&format!("{THREE}{script}"));
}

#[test]
fn select_tells_what_a_client_must_know() {
    check(&format!(
        r"{THREE}
        B> b SELECT inbox
        B< * FLAGS (\Answered \Flagged \Deleted \Seen \Draft $Work)
        B< * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft $Work \*)] Flags permitted
        B< * 3 EXISTS
        B< * 0 RECENT
        B< * OK [UNSEEN 2] First unseen
        B< * OK [UIDVALIDITY #] UIDs valid
        B< * OK [UIDNEXT 4] Predicted next UID
        B< * OK [HIGHESTMODSEQ #] Highest
        B< b OK [READ-WRITE] Select completed
        B> c EXAMINE Sent
        B< * OK [CLOSED] Previous mailbox closed
        B< * FLAGS (\Answered \Flagged \Deleted \Seen \Draft)
        B< * OK [PERMANENTFLAGS ()] Flags permitted
        B< * 0 EXISTS
        B< * 0 RECENT
        B< * OK [UIDVALIDITY #] UIDs valid
        B< * OK [UIDNEXT 1] Predicted next UID
        B< * OK [HIGHESTMODSEQ #] Highest
        B< c OK [READ-ONLY] Examine completed
        B> d SELECT Nosuch
        B< * OK [CLOSED] Previous mailbox closed
        B< d NO [NONEXISTENT] No such mailbox
        B> e FETCH 1 FLAGS
        B< e BAD Select a mailbox first",
    ));
}

#[test]
fn fetch_gives_what_is_asked_in_the_order_asked() {
    check_three(
        r#"
        A> b FETCH 1:3 (UID FLAGS RFC822.SIZE)
        A< * 1 FETCH (UID 1 FLAGS (\Seen) RFC822.SIZE 80)
        A< * 2 FETCH (UID 2 FLAGS () RFC822.SIZE 81)
        A< * 3 FETCH (UID 3 FLAGS (\Flagged $Work) RFC822.SIZE 75)
        A< b OK Fetch completed
        A> c UID FETCH 3 (BODY.PEEK[HEADER.FIELDS (Subject)] BODY.PEEK[TEXT]<1.3> INTERNALDATE)
        A< * 3 FETCH (UID 3 BODY[HEADER.FIELDS (Subject)] <<Subject: three\r\n\r\n>> BODY[TEXT]<1> <<hir>> INTERNALDATE "…
        A< c OK Fetch completed
        A> d FETCH 1 ENVELOPE
        A< * 1 FETCH (ENVELOPE ("1 Feb 2024 10:00:00 +0000" "one" (("Ann" NIL "ann" "x")) (("Ann" NIL "ann" "x")) (("Ann" NIL "ann" "x")) NIL NIL NIL NIL NIL))
        A< d OK Fetch completed
        A> e FETCH 1 (BODYSTRUCTURE)
        A< * 1 FETCH (BODYSTRUCTURE ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 12 1 NIL NIL NIL NIL))
        A< e OK Fetch completed
        A> f FETCH 2 (BODY[1] BODY[2] RFC822.HEADER)
        A< * 2 FETCH (BODY[1] <<second body\r\n>> BODY[2] NIL RFC822.HEADER <<From: Bob <bob@x>\r\nSubject: two\r\nDate: 2 Feb 2024 10:00:00 +0000\r\n\r\n>> FLAGS (\Seen))
        A< f OK Fetch completed
        A> g FETCH 9 FLAGS
        A< g OK Fetch completed
        A> h UID FETCH 9:* UID
        A< * 3 FETCH (UID 3)
        A< h OK Fetch completed
        A> i FETCH 2,1,2 FLAGS
        A< * 1 FETCH (FLAGS (\Seen))
        A< * 2 FETCH (FLAGS (\Seen))
        A< i OK Fetch completed
        A> j FETCH 1 RFC822.TEXT
        A< * 1 FETCH (RFC822.TEXT <<first body\r\n>>)
        A< j OK Fetch completed"#,
    );
}

#[test]
fn reading_marks_as_seen_but_peeking_and_examining_do_not() {
    check_three(
        r"
        A> b FETCH 2 BODY.PEEK[TEXT]
        A< * 2 FETCH (BODY[TEXT] <<second body\r\n>>)
        A< b OK Fetch completed
        B> b EXAMINE INBOX
        B… b OK
        B> c FETCH 2 BODY[TEXT]
        B< * 2 FETCH (BODY[TEXT] <<second body\r\n>>)
        B< c OK Fetch completed
        A> c FETCH 2 (BODY[TEXT] FLAGS)
        A< * 2 FETCH (BODY[TEXT] <<second body\r\n>> FLAGS (\Seen))
        A< c OK Fetch completed
        B> d NOOP
        B< * 2 FETCH (FLAGS (\Seen))
        B< d OK NOOP completed
        B> e STORE 2 +FLAGS (\Deleted)
        B< e NO [CANNOT] Mailbox is read-only",
    );
}

#[test]
fn store_tells_the_new_flags_unless_silent() {
    check_three(
        r"
        A> b STORE 1:2 +FLAGS (\Answered Forwarded)
        A< * FLAGS (\Answered \Flagged \Deleted \Seen \Draft $Work Forwarded)
        A< * 1 FETCH (FLAGS (\Seen \Answered Forwarded))
        A< * 2 FETCH (FLAGS (\Answered Forwarded))
        A< b OK Store completed
        A> c UID STORE 2 -FLAGS.SILENT (\Answered)
        A< c OK Store completed
        A> d UID STORE 2 FLAGS (\Deleted)
        A< * 2 FETCH (UID 2 FLAGS (\Deleted))
        A< d OK Store completed
        B> b SELECT INBOX
        B… b OK
        A> e STORE 1 FLAGS ()
        A< * 1 FETCH (FLAGS ())
        A< e OK Store completed
        B> c NOOP
        B< * 1 FETCH (FLAGS ())
        B< c OK NOOP completed",
    );
}

#[test]
fn expunge_is_told_to_others_only_when_it_may_be() {
    check_three(
        r"
        B> b SELECT INBOX
        B… b OK
        A> b STORE 1,3 +FLAGS.SILENT (\Deleted)
        A< b OK Store completed
        A> c UID EXPUNGE 2:3
        A< * 3 EXPUNGE
        A< c OK Expunge completed
        B> c FETCH 2:3 UID
        B< * 2 FETCH (UID 2)
        B< c NO [EXPUNGEISSUED] Some of the messages are gone
        B> d STORE 2:3 +FLAGS (\Flagged)
        B< * 2 FETCH (FLAGS (\Flagged))
        B< d NO [EXPUNGEISSUED] Some of the messages are gone
        B> e SEARCH ALL
        B< * SEARCH 1 2 3
        B< e OK Search completed
        B> f NOOP
        B< * 3 EXPUNGE
        B< * 1 FETCH (FLAGS (\Seen \Deleted))
        B< * 2 FETCH (FLAGS (\Flagged))
        B< f OK NOOP completed
        A> d EXPUNGE
        A< * 1 EXPUNGE
        A< * 1 FETCH (FLAGS (\Flagged))
        A< d OK Expunge completed
        B> g UID FETCH 1:* FLAGS
        B< * 2 FETCH (UID 2 FLAGS (\Flagged))
        B< * 1 EXPUNGE
        B< g OK Fetch completed
        A> e SEARCH ALL
        A< * SEARCH 1
        A< e OK Search completed",
    );
}

#[test]
fn close_expunges_without_a_word_and_unselect_does_not() {
    check_three(
        r"
        A> b STORE 1 +FLAGS.SILENT (\Deleted)
        A< b OK Store completed
        A> c UNSELECT
        A< c OK Unselect completed
        A> d STATUS INBOX (MESSAGES DELETED UNSEEN)
        A< * STATUS INBOX (MESSAGES 3 DELETED 1 UNSEEN 2)
        A< d OK Status completed
        A> e SELECT INBOX
        A… e OK
        A> f CLOSE
        A< f OK Close completed
        A> g STATUS INBOX (MESSAGES UIDNEXT)
        A< * STATUS INBOX (MESSAGES 2 UIDNEXT 4)
        A< g OK Status completed
        A> h CHECK
        A< h BAD Select a mailbox first",
    );
}

#[test]
fn copy_and_move_tell_the_new_uids() {
    check_three(
        r"
        A> b COPY 2:3 Archive
        A< b OK [COPYUID # 2:3 1:2] Copy completed
        A> c UID MOVE 1 Trash
        A< * OK [COPYUID # 1 1] Moved
        A< * 1 EXPUNGE
        A< c OK Move completed
        A> d COPY 1 Nosuch
        A< d NO [TRYCREATE] No such mailbox
        A> e UID COPY 77 Archive
        A< e OK Copy completed
        A> f SELECT Archive
        A… f OK
        A> g FETCH 1:* (UID FLAGS)
        A< * 1 FETCH (UID 1 FLAGS ())
        A< * 2 FETCH (UID 2 FLAGS (\Flagged $Work))
        A< g OK Fetch completed
        A> h APPEND Nosuch <<x>>
        A< h NO [TRYCREATE] No such mailbox
        A> i APPEND INBOX <<>>
        A< i NO [CANNOT] Message is empty",
    );
}

#[test]
fn search_finds_by_flags_dates_sizes_and_text() {
    check_three(
        r#"
        A> b SEARCH UNSEEN
        A< * SEARCH 2 3
        A< b OK Search completed
        A> b SEARCH KEYWORD $work FLAGGED
        A< * SEARCH 3
        A< b OK Search completed
        A> b SEARCH OR FROM ann SUBJECT three
        A< * SEARCH 1 3
        A< b OK Search completed
        A> b SEARCH NOT BODY body
        A< * SEARCH 3
        A< b OK Search completed
        A> b UID SEARCH TEXT "SECOND" 1:2
        A< * SEARCH 2
        A< b OK Search completed
        A> b SEARCH SENTON 2-Feb-2024
        A< * SEARCH 2
        A< b OK Search completed
        A> b SEARCH SENTSINCE 2-Feb-2024 NOT SENTON 3-Feb-2024
        A< * SEARCH 2
        A< b OK Search completed
        A> b SEARCH BEFORE 1-Jan-2000
        A< * SEARCH
        A< b OK Search completed
        A> b SEARCH LARGER 80
        A< * SEARCH 2
        A< b OK Search completed
        A> b SEARCH HEADER Subject "" UID 2:*
        A< * SEARCH 2 3
        A< b OK Search completed
        A> b UID SEARCH RETURN (MIN MAX COUNT ALL) ALL
        A< * ESEARCH (TAG "b") UID MIN 1 MAX 3 ALL 1:3 COUNT 3
        A< b OK Search completed
        A> b SEARCH RETURN (MIN COUNT) DELETED
        A< * ESEARCH (TAG "b") COUNT 0
        A< b OK Search completed
        A> b SEARCH NEW
        A< * SEARCH
        A< b OK Search completed
        A> b SEARCH CHARSET KOI8-R ALL
        A< b NO [BADCHARSET (US-ASCII UTF-8)] Character set is not known"#,
    );
}

#[test]
fn mailboxes_are_made_listed_renamed_and_deleted() {
    check(
        r#"
        A> a LIST "" ""
        A< * LIST (\Noselect) "/" ""
        A< a OK List completed
        A> b LIST "" *
        A< * LIST (\HasNoChildren \Archive) "/" Archive
        A< * LIST (\HasNoChildren \Drafts) "/" Drafts
        A< * LIST (\HasNoChildren) "/" INBOX
        A< * LIST (\HasNoChildren \Junk) "/" Junk
        A< * LIST (\HasNoChildren \Sent) "/" Sent
        A< * LIST (\HasNoChildren \Trash) "/" Trash
        A< b OK List completed
        A> c CREATE "Lists/&XfJT0ZAB-/x"
        A< c OK Create completed
        A> d LIST "" "L%"
        A< * LIST (\HasChildren) "/" Lists
        A< d OK List completed
        A> d LIST Lists/ "*"
        A< * LIST (\HasChildren) "/" Lists/&XfJT0ZAB-
        A< * LIST (\HasNoChildren) "/" Lists/&XfJT0ZAB-/x
        A< d OK List completed
        A> e CREATE lists
        A< e OK Create completed
        A> e CREATE Lists
        A< e NO [ALREADYEXISTS] Mailbox exists already
        A> f CREATE "a//b"
        A< f NO [CANNOT] Mailbox name has an empty level
        A> f DELETE INBOX
        A< f NO [CANNOT] …
        A> g RENAME Lists "A B"
        A< g OK Rename completed
        A> h LIST "" "A B*"
        A< * LIST (\HasChildren) "/" "A B"
        A< * LIST (\HasChildren) "/" "A B/&XfJT0ZAB-"
        A< * LIST (\HasNoChildren) "/" "A B/&XfJT0ZAB-/x"
        A< h OK List completed
        A> i DELETE "A B/&XfJT0ZAB-/x"
        A< i OK Delete completed
        A> i SELECT "A B/&XfJT0ZAB-/x"
        A< i NO [NONEXISTENT] No such mailbox"#,
    );
}

#[test]
fn subscriptions_are_kept_apart_from_mailboxes() {
    check(
        r#"
        A> a CREATE one/two
        A< a OK Create completed
        A> b SUBSCRIBE one/two
        A< b OK Subscribe completed
        A> c SUBSCRIBE ghost
        A< c OK Subscribe completed
        A> c UNSUBSCRIBE Junk
        A< c OK Unsubscribe completed
        A> d LSUB "" "one*"
        A< * LSUB (\HasNoChildren) "/" one/two
        A< d OK Lsub completed
        A> e LSUB "" "o%"
        A< * LSUB (\Noselect) "/" one
        A< e OK Lsub completed
        A> f LSUB "" ghost
        A< * LSUB () "/" ghost
        A< f OK Lsub completed
        A> g LIST (SUBSCRIBED) "" ("ghost" "one/*")
        A< * LIST (\NonExistent \Noselect \Subscribed) "/" ghost
        A< * LIST (\HasNoChildren \Subscribed) "/" one/two
        A< g OK List completed
        A> h LIST (SUBSCRIBED RECURSIVEMATCH) "" "o%"
        A< * LIST (\HasChildren) "/" one ("CHILDINFO" ("SUBSCRIBED"))
        A< h OK List completed
        A> i LIST "" ghost
        A< i OK List completed
        A> j LIST (SPECIAL-USE) "" * RETURN (STATUS (MESSAGES))
        A< * LIST (\HasNoChildren \Archive) "/" Archive
        A< * STATUS Archive (MESSAGES 0)
        A< * LIST (\HasNoChildren \Drafts) "/" Drafts
        A< * STATUS Drafts (MESSAGES 0)
        A< * LIST (\HasNoChildren \Junk) "/" Junk
        A< * STATUS Junk (MESSAGES 0)
        A< * LIST (\HasNoChildren \Sent) "/" Sent
        A< * STATUS Sent (MESSAGES 0)
        A< * LIST (\HasNoChildren \Trash) "/" Trash
        A< * STATUS Trash (MESSAGES 0)
        A< j OK List completed"#,
    );
}

#[test]
fn idle_tells_changes_as_they_come() {
    check_three(
        r"
        B> b SELECT INBOX
        B… b OK
        B> c IDLE
        B< + idling
        A> b STORE 1 +FLAGS.SILENT (\Deleted)
        A< b OK Store completed
        B!
        B< * 1 FETCH (FLAGS (\Seen \Deleted))
        A> c APPEND INBOX <<x\r\n>>
        A< * 4 EXISTS
        A< c OK [APPENDUID # 4] Append completed
        A> d EXPUNGE
        A< * 1 EXPUNGE
        A< d OK Expunge completed
        B!
        B< * 1 EXPUNGE
        B< * 3 EXISTS
        B> DONE
        B< c OK Idle completed",
    );
}

#[test]
fn a_deleted_mailbox_ends_the_sessions_that_have_it_selected() {
    check(
        r"
        A> a CREATE x
        A< a OK Create completed
        A> b SELECT x
        A… b OK
        B> b SELECT x
        B… b OK
        A> c DELETE x
        A< c OK Delete completed
        A> d NOOP
        A< d OK NOOP completed
        B> c NOOP
        B< * BYE Selected mailbox was deleted
        B< (closed)",
    );
}

#[test]
fn condstore_tells_and_keeps_to_modseqs() {
    check_three(
        r"
        A> b FETCH 1 (FLAGS MODSEQ)
        A< * 1 FETCH (FLAGS (\Seen) MODSEQ (#))
        A< b OK Fetch completed
        A> c STORE 1 (UNCHANGEDSINCE 1) +FLAGS (\Flagged)
        A< c OK [MODIFIED 1] Conditional store failed for some
        A> d UID STORE 1:2 (UNCHANGEDSINCE 1000000) +FLAGS.SILENT (\Answered)
        A< * 1 FETCH (UID 1 MODSEQ (#))
        A< * 2 FETCH (UID 2 MODSEQ (#))
        A< d OK Store completed
        A> e FETCH 1:* (FLAGS) (CHANGEDSINCE 1000000)
        A< e OK Fetch completed
        A> f SEARCH MODSEQ 1 SEEN
        A< * SEARCH 1 (MODSEQ #)
        A< f OK Search completed
        A> g STORE 3 FLAGS ()
        A< * 3 FETCH (UID 3 MODSEQ (#) FLAGS ())
        A< g OK Store completed
        A> h STATUS INBOX (HIGHESTMODSEQ)
        A< * STATUS INBOX (HIGHESTMODSEQ #)
        A< h OK Status completed",
    );
}
