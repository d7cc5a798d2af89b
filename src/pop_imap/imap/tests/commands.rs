//! Framed commands become what is asked.

use bytes::Bytes;

use crate::config::secret::SecretText;
use crate::pop_imap::imap::command::{
    AppendRequest, Command, CommandError, CopyRequest, FetchRequest, Item, SecretBytes, SelectRequest, StoreRequest,
    parse,
};
use crate::pop_imap::imap::list::ListRequest;
use crate::pop_imap::imap::name::Pattern;
use crate::pop_imap::imap::section::{Partial, Section, What};
use crate::pop_imap::imap::set::Set;
use crate::pop_imap::imap::status::StatusItem;
use crate::pop_imap::store::{Flag, FlagChange};

fn parsed(text: &str) -> Result<Command, CommandError> {
    parse(&Bytes::copy_from_slice(format!("a {text}\r\n").as_bytes()))
}

fn check(text: &str, expected: Command) {
    assert_eq!(parsed(text), Ok(expected), "{text}");
}

fn set(text: &str) -> Set {
    Set::parse(text.as_bytes()).unwrap()
}

fn fetch(text: &str, items: Vec<Item>) {
    check(text, Command::Fetch(FetchRequest { set: set("1:*"), uid: false, items, changed_since: None }));
}

fn section(path: &[u32], what: What) -> Section {
    Section { path: path.to_vec(), what }
}

#[test]
fn plain_commands_are_understood_in_any_case() {
    check("capability", Command::Capability);
    check("NOOP", Command::Noop);
    check("Logout", Command::Logout);
    check("STARTTLS", Command::StartTls);
    check("IDLE", Command::Idle);
    check("CHECK", Command::Check);
    check("CLOSE", Command::Close);
    check("UNSELECT", Command::Unselect);
    check("NAMESPACE", Command::Namespace);
    check("ID NIL", Command::Id);
    check(r#"ID ("name" "mutt" "version" NIL)"#, Command::Id);
    check("ENABLE CONDSTORE", Command::Enable { condstore: true });
    check("ENABLE UTF8=ACCEPT X", Command::Enable { condstore: false });
    check("EXPUNGE", Command::Expunge { uids: None });
    check("UID EXPUNGE 3:5", Command::Expunge { uids: Some(set("3:5")) });
}

#[test]
fn logins_are_understood_and_never_shown() {
    let login =
        |user: &str, password: &str| Command::Login { user: user.into(), password: SecretText::new(password.into()) };
    check("LOGIN u1 secret", login("u1", "secret"));
    check(r#"LOGIN "u1@example.test" "a \"b\\""#, login("u1@example.test", "a \"b\\"));
    check("LOGIN {2}\r\nu1 {5+}\r\nse\"ct", login("u1", "se\"ct"));
    check("LOGIN u1 {6+}\r\npäss ", login("u1", "päss "));
    check("LOGIN u1 \"\"", login("u1", ""));
    check("AUTHENTICATE PLAIN", Command::AuthenticatePlain { initial: None });
    check(
        "AUTHENTICATE PLAIN AHUxAHB3",
        Command::AuthenticatePlain { initial: Some(SecretBytes(b"\0u1\0pw".to_vec())) },
    );
    check("AUTHENTICATE PLAIN =", Command::AuthenticatePlain { initial: Some(SecretBytes(Vec::new())) });
    check("AUTHENTICATE CRAM-MD5", Command::AuthenticateOther);
    let shown = format!("{:?} {:?}", parsed("LOGIN u1 secret"), parsed("AUTHENTICATE PLAIN AHUxAHNlY3JldA=="));
    assert!(!shown.contains("secret") && !shown.contains("115"), "{shown}");
}

#[test]
fn mailbox_commands_are_understood() {
    let select = |mailbox: &str, read_only, condstore| {
        Command::Select(SelectRequest { mailbox: mailbox.into(), read_only, condstore })
    };
    check("SELECT inbox", select("INBOX", false, false));
    check("EXAMINE \"Sent Items\"", select("Sent Items", true, false));
    check("SELECT a (CONDSTORE)", select("a", false, true));
    check("SELECT &XfJT0ZAB-", select("已发送", false, false));
    check("CREATE a/b/", Command::Create("a/b/".into()));
    check("DELETE {3}\r\na b", Command::Delete("a b".into()));
    check("RENAME a \"b c\"", Command::Rename { from: "a".into(), to: "b c".into() });
    check("SUBSCRIBE a", Command::Subscribe { name: "a".into(), on: true });
    check("UNSUBSCRIBE a", Command::Subscribe { name: "a".into(), on: false });
    let items = vec![StatusItem::Messages, StatusItem::UidNext, StatusItem::HighestModSeq, StatusItem::Size];
    check("STATUS a (MESSAGES UIDNEXT HIGHESTMODSEQ SIZE)", Command::Status { mailbox: "a".into(), items });
    let append = |flags: Vec<Flag>, date, message: &str| {
        Command::Append(AppendRequest {
            mailbox: "a".into(),
            flags,
            date,
            message: Bytes::copy_from_slice(message.as_bytes()),
        })
    };
    check("APPEND a {5}\r\nhello", append(vec![], None, "hello"));
    let flags = vec![Flag::Seen, Flag::Keyword("$Forwarded".into())];
    let date = "\"17-Jul-1996 02:44:25 -0700\"";
    check(
        &format!("APPEND a (\\Seen $Forwarded \\Recent) {date} {{5+}}\r\nhello"),
        append(flags, Some(837_596_665), "hello"),
    );
    check("APPEND a {0}\r\n", append(vec![], None, ""));
}

#[test]
fn list_is_understood_with_and_without_options() {
    let pattern = |text: &str| Pattern::new(b"", text.as_bytes()).unwrap();
    check("LIST \"\" *", Command::List(ListRequest { patterns: vec![pattern("*")], ..Default::default() }));
    check("list \"\" \"\"", Command::List(ListRequest::default()));
    check("LIST a/ %", Command::List(ListRequest { patterns: vec![pattern("a/%")], ..Default::default() }));
    let lsub = ListRequest { lsub: true, select_subscribed: true, patterns: vec![pattern("*")], ..Default::default() };
    check("LSUB \"\" \"*\"", Command::List(lsub));
    let extended = ListRequest {
        select_subscribed: true,
        return_subscribed: true,
        recursive_match: true,
        return_children: true,
        return_status: vec![StatusItem::Messages, StatusItem::Unseen],
        patterns: vec![pattern("INBOX"), pattern("a/%")],
        ..Default::default()
    };
    let text =
        "LIST (SUBSCRIBED RECURSIVEMATCH) \"\" (INBOX \"a/%\") RETURN (CHILDREN SPECIAL-USE STATUS (MESSAGES UNSEEN))";
    check(text, Command::List(extended));
    assert_eq!(parsed("LIST (RECURSIVEMATCH) \"\" *"), Err(CommandError::Syntax));
    assert_eq!(parsed("LIST \"\""), Err(CommandError::Syntax));
    assert_eq!(parsed("LIST \"\" * x"), Err(CommandError::Syntax));
}

#[test]
fn fetch_items_are_understood() {
    fetch("FETCH 1:* FLAGS", vec![Item::Flags]);
    fetch("FETCH 1:* ALL", vec![Item::Flags, Item::InternalDate, Item::Size, Item::Envelope]);
    fetch("FETCH 1:* FULL", vec![Item::Flags, Item::InternalDate, Item::Size, Item::Envelope, Item::Body]);
    fetch("FETCH 1:* (UID BODYSTRUCTURE MODSEQ)", vec![Item::Uid, Item::BodyStructure, Item::ModSeq]);
    let item = |section, partial, peek| Item::Section { section, partial, peek };
    fetch("FETCH 1:* BODY[]", vec![item(section(&[], What::Everything), None, false)]);
    let partial = Some(Partial { offset: 5, length: 10 });
    fetch("FETCH 1:* (BODY.PEEK[1.2.MIME]<5.10>)", vec![item(section(&[1, 2], What::Mime), partial, true)]);
    let names = vec![b"Subject".to_vec(), b"X-A".to_vec()];
    let fields = section(&[], What::Fields { names, not: true });
    fetch("FETCH 1:* BODY.PEEK[HEADER.FIELDS.NOT (Subject \"X-A\")]", vec![item(fields, None, true)]);
    fetch("FETCH 1:* BODY[3.TEXT]", vec![item(section(&[3], What::Text), None, false)]);
    let rfc822 = |what, word, peek| Item::Rfc822 { section: section(&[], what), word, peek };
    fetch("FETCH 1:* RFC822", vec![rfc822(What::Everything, "RFC822", false)]);
    fetch(
        "FETCH 1:* (RFC822.SIZE RFC822.HEADER RFC822.TEXT)",
        vec![Item::Size, rfc822(What::Header, "RFC822.HEADER", true), rfc822(What::Text, "RFC822.TEXT", false)],
    );
    let request = FetchRequest { set: set("1,3:5"), uid: true, items: vec![Item::Flags], changed_since: Some(12345) };
    check("UID FETCH 1,3:5 (FLAGS) (CHANGEDSINCE 12345)", Command::Fetch(request));
}

#[test]
fn store_copy_and_move_are_understood() {
    let store = |change, silent, unchanged_since| {
        let flags = vec![Flag::Deleted];
        Command::Store(StoreRequest { set: set("1"), uid: false, change, flags, silent, unchanged_since })
    };
    check("STORE 1 +FLAGS (\\Deleted)", store(FlagChange::Add, false, None));
    check("STORE 1 -FLAGS.SILENT \\Deleted", store(FlagChange::Remove, true, None));
    check("STORE 1 (UNCHANGEDSINCE 7) FLAGS (\\Deleted)", store(FlagChange::Replace, false, Some(7)));
    let copy = |uid, moving| Command::Copy(CopyRequest { set: set("1"), uid, mailbox: "a b".into(), moving });
    check("COPY 1 \"a b\"", copy(false, false));
    check("UID COPY 1 \"a b\"", copy(true, false));
    check("MOVE 1 \"a b\"", copy(false, true));
    check("UID MOVE 1 \"a b\"", copy(true, true));
}

#[test]
fn what_is_no_command_is_refused() {
    for text in [
        "",
        "NOOP x",
        "NOOPx",
        " NOOP",
        "LOGIN u1",
        "LOGIN u1 pw more",
        "SELECT",
        "SELECT a\0b",
        "SELECT a\rb",
        "SELECT \"a\nb\"",
        "FETCH 0 FLAGS",
        "FETCH 1:* ()",
        "FETCH 1:* BODY[0]",
        "FETCH 1:* BODY[1.HEADER.FIELDS ()]",
        "FETCH 4294967296 FLAGS",
        "STORE 1 FLAGS (\\Seen",
        "APPEND a {3}\r\na\0b",
        "STATUS a ()",
        "XYZZY",
    ] {
        assert_eq!(parsed(text), Err(CommandError::Syntax), "{text:?}");
    }
    for text in ["SELECT a (QRESYNC (1 2))", "FETCH 1 BINARY[1]", "GETQUOTAROOT INBOX", "APPEND a ~{1}\r\na"] {
        assert_eq!(parsed(text), Err(CommandError::Unsupported), "{text:?}");
    }
    assert!(matches!(parsed("SELECT &bad"), Err(CommandError::Name(_))));
    assert_eq!(parsed("STORE 1 FLAGS (\\Nosuch)"), Err(CommandError::Flag));
}
