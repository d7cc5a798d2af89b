//! What each operation does.

use super::*;
use crate::base::clock;
use crate::pop_imap::store::writer::Callers;
use crate::pop_imap::store::{Flag, FlagChange, Flags, SpecialUse, StoreError, Where};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_account_has_its_first_mailboxes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mailboxes = store.mailboxes(account(1)).await.unwrap();
    let names: Vec<_> = mailboxes.iter().map(|info| (info.name.as_str(), info.special_use)).collect();
    let expected = [
        ("INBOX", None),
        ("Archive", Some(SpecialUse::Archive)),
        ("Drafts", Some(SpecialUse::Drafts)),
        ("Junk", Some(SpecialUse::Junk)),
        ("Sent", Some(SpecialUse::Sent)),
        ("Trash", Some(SpecialUse::Trash)),
    ];
    assert_eq!(names, expected);
    assert!(mailboxes.iter().all(|info| info.subscribed && info.uid_next == 1 && !info.has_children));
    assert_eq!(store.subscriptions(account(1)).await.unwrap().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_message_is_there_for_each_recipient_with_its_own_trace() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let deliveries = vec![to(account(1), "Delivered-To: one\r\n"), to(account(2), ""), to(account(1), "X: again\r\n")];
    let delivered = store.deliver(text(7), deliveries, at(1000)).await.unwrap();
    assert_eq!(delivered.iter().flatten().map(|d| d.uid).collect::<Vec<_>>(), [1, 1, 2]);
    let inbox = store.select(account(1), "inbox").await.unwrap();
    let expected = [b"Delivered-To: one\r\n".as_slice(), &text(7)].concat();
    assert_eq!(store.message(&inbox, 1).await.unwrap().unwrap(), expected);
    assert_eq!(store.message(&inbox, 3).await.unwrap(), None);
    let row = rows(&inbox)[0];
    assert_eq!((row.size as usize, row.internal_date, row.flags), (expected.len(), 1000, Flags::NONE));
    let other = store.select(account(2), "INBOX").await.unwrap();
    assert_eq!(store.message(&other, 1).await.unwrap().unwrap(), text(7));
    assert_eq!(rows(&other)[0].message, row.message); // stored once

    let structure = store.structures(&inbox, &[1]).await.unwrap().pop().unwrap().unwrap();
    let body = structure.root.body.start as usize..structure.root.body.end as usize;
    assert_eq!(&expected[body], b"body 7\r\n");
    let envelope = store.envelopes(&inbox, &[9, 1]).await.unwrap();
    assert!(envelope[0].is_none());
    assert_eq!(envelope[1].as_ref().unwrap().fields().subject, Some(b"message 7".as_slice()));
    let header = store.headers(&inbox, &[1]).await.unwrap().pop().unwrap().unwrap();
    assert_eq!(header, expected[..structure.root.header.end as usize]);
    assert!(store.check().unwrap().is_good());
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_to_a_mailbox_that_is_gone_goes_to_inbox() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut delivery = to(account(1), "");
    delivery.mailbox = "no/such".into();
    delivery.flags = vec![Flag::Seen, Flag::Keyword("$Label1".into())];
    store.deliver(text(1), vec![delivery], at(1)).await.unwrap();
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    let view = inbox.view();
    let names: Vec<_> = view.messages.get(0).unwrap().flags.names(&view.keywords).collect();
    assert_eq!(names, ["\\Seen", "$Label1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_change_as_store_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 1..=3 {
        store.append(account(1), "INBOX", text(number), &[], 5).await.unwrap();
    }
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    let before = inbox.view();
    let changes = inbox.changes();
    let word = Flag::Keyword("NonJunk".into());
    store.set_flags(&inbox, &[1, 2, 99], FlagChange::Add, &[Flag::Seen, word.clone()], None).await.unwrap();
    assert!(changes.has_changed().unwrap());
    let after = inbox.view();
    assert_eq!(after.since(&before).changed, [0, 1]);
    let since = after.highest_modseq;
    store.set_flags(&inbox, &[2], FlagChange::Replace, &[Flag::Deleted], None).await.unwrap();
    let set = store.set_flags(&inbox, &[1, 2], FlagChange::Remove, &[Flag::Seen, word], Some(since)).await.unwrap();
    assert_eq!(set.modified, [2]);
    let flags: Vec<_> = rows(&inbox).iter().map(|row| row.flags).collect();
    assert_eq!(flags, [Flags::NONE, Flags::DELETED, Flags::NONE]);
    let info = store.mailbox(account(1), "INBOX").await.unwrap();
    assert_eq!((info.messages, info.unseen, info.deleted), (3, 3, 1));
    assert_eq!(info.highest_modseq, inbox.view().highest_modseq);
    assert_eq!(before.messages.get(0).unwrap().flags, Flags::NONE); // the old snapshot stays
}

#[tokio::test(flavor = "multi_thread")]
async fn keywords_are_bounded_and_letter_case_makes_no_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(account(1), "INBOX", text(1), &[], 5).await.unwrap();
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    let word = |n: usize| Flag::Keyword(format!("w{n}"));
    for n in 0..crate::pop_imap::store::flags::KEYWORDS_MAX {
        store.set_flags(&inbox, &[1], FlagChange::Add, &[word(n)], None).await.unwrap();
    }
    let refused = store.set_flags(&inbox, &[1], FlagChange::Add, &[word(99)], None).await;
    assert!(matches!(refused, Err(StoreError::Limit(_))), "{refused:?}");
    store.set_flags(&inbox, &[1], FlagChange::Remove, &[Flag::Keyword("W54".into())], None).await.unwrap();
    let view = inbox.view();
    assert_eq!(view.messages.get(0).unwrap().flags.names(&view.keywords).count(), view.keywords.len() - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_onto_itself_does_not_copy_its_own_copies() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.deliver(text(1), vec![to(account(1), "")], at(11)).await.unwrap();
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    // 2 is not there when it is asked for; the copy of 1 becomes it.
    let copied = store.copy(&inbox, &[1, 2], account(1), "INBOX").await.unwrap();
    assert_eq!((copied.source, copied.target), (vec![1], vec![2]));
    assert_eq!(uids(&inbox), [1, 2]);
    let moved = store.move_(&inbox, &[1, 4], account(1), "INBOX").await.unwrap();
    assert_eq!((moved.source, moved.target), (vec![1], vec![4]));
    assert_eq!(uids(&inbox), [2, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_and_move_keep_flags_dates_and_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.deliver(text(1), vec![to(account(1), "T: 1\r\n")], at(11)).await.unwrap();
    store.append(account(1), "INBOX", text(2), &[Flag::Flagged, Flag::Keyword("k".into())], 22).await.unwrap();
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    let copied = store.copy(&inbox, &[1, 2, 3], account(1), "Archive").await.unwrap();
    assert_eq!((copied.source.as_slice(), copied.target.as_slice()), ([1, 2].as_slice(), [1, 2].as_slice()));
    let moved = store.move_(&inbox, &[2], account(1), "Archive").await.unwrap();
    assert_eq!((moved.source, moved.target), (vec![2], vec![4])); // 3 was kept for what was not there
    assert_eq!(uids(&inbox), [1]);
    let archive = store.select(account(1), "Archive").await.unwrap();
    assert_eq!(uids(&archive), [1, 2, 4]);
    let view = archive.view();
    let names: Vec<_> = view.messages.by_uid(4).unwrap().flags.names(&view.keywords).collect();
    assert_eq!(names, ["\\Flagged", "k"]);
    assert_eq!(view.messages.by_uid(2).unwrap().internal_date, 22);
    store.expunge(&inbox, &[1]).await.unwrap();
    let bytes = store.message(&archive, 1).await.unwrap().unwrap();
    assert_eq!(bytes, [b"T: 1\r\n".as_slice(), &text(1)].concat());
    let missing = store.copy(&archive, &[1], account(1), "Nowhere").await;
    assert!(matches!(missing, Err(StoreError::NoSuchMailbox)));
    let foreign = store.copy(&archive, &[1], account(2), "INBOX").await;
    assert!(matches!(foreign, Err(StoreError::Refused(_))));
    assert!(store.check().unwrap().is_good());
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_are_made_renamed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let one = account(1);
    store.create(one, "a/b/c/", None).await.unwrap();
    assert!(matches!(store.create(one, "a/b", None).await, Err(StoreError::MailboxExists)));
    assert!(matches!(store.create(one, "Inbox", None).await, Err(StoreError::MailboxExists)));
    assert!(matches!(store.rename(one, "a", "a/b/d").await, Err(StoreError::Refused(_))));
    assert!(matches!(store.rename(one, "nix", "x").await, Err(StoreError::NoSuchMailbox)));
    store.append(one, "a/b/c", text(1), &[], 1).await.unwrap();
    let c = store.select(one, "a/b/c").await.unwrap();
    store.rename(one, "a/b", "new/b2").await.unwrap();
    let names = |mailboxes: Vec<crate::pop_imap::store::MailboxInfo>| {
        mailboxes.into_iter().filter(|info| info.special_use.is_none()).map(|info| info.name).collect::<Vec<_>>()
    };
    assert_eq!(names(store.mailboxes(one).await.unwrap()), ["INBOX", "a", "new", "new/b2", "new/b2/c"]);
    assert_eq!(store.select(one, "new/b2/c").await.unwrap().id(), c.id()); // open mailboxes stay open
    assert!(store.mailbox(one, "new").await.unwrap().has_children);

    store.delete(one, "new/b2").await.unwrap(); // children stay
    assert_eq!(names(store.mailboxes(one).await.unwrap()), ["INBOX", "a", "new", "new/b2/c"]);
    assert!(!c.is_deleted());
    store.delete(one, "new/b2/c").await.unwrap();
    assert!(c.is_deleted());
    assert!(matches!(store.expunge(&c, &[1]).await, Err(StoreError::NoSuchMailbox)));
    assert!(matches!(store.delete(one, "INBOX").await, Err(StoreError::Refused(_))));

    let old = c.uid_validity();
    store.create(one, "new/b2/c", None).await.unwrap();
    assert!(store.mailbox(one, "new/b2/c").await.unwrap().uid_validity > old);
}

#[tokio::test(flavor = "multi_thread")]
async fn renaming_inbox_moves_its_messages_and_leaves_it_empty() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let one = account(1);
    store.create(one, "INBOX/child", None).await.unwrap();
    for number in 0..3 {
        store.append(one, "INBOX", text(number), &[Flag::Keyword("k".into())], 1).await.unwrap();
    }
    let inbox = store.select(one, "INBOX").await.unwrap();
    store.expunge(&inbox, &[2]).await.unwrap();
    store.rename(one, "INBOX", "old/mail").await.unwrap();
    assert_eq!(uids(&inbox), [] as [u32; 0]);
    assert_eq!(uids(&store.select(one, "old/mail").await.unwrap()), [1, 3]);
    assert_eq!(store.append(one, "INBOX", text(9), &[], 1).await.unwrap().uid, 4);
    assert_eq!(store.append(one, "old/mail", text(9), &[], 1).await.unwrap().uid, 4);
    assert!(store.mailbox(one, "INBOX/child").await.is_ok());
    assert!(store.check().unwrap().is_good());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_from_the_network_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let long = "x".repeat(513);
    let deep = vec!["d"; 17].join("/");
    for bad in ["", "/", "a//b", "/a", "a\0b", "a\r\nb", "a\u{2028}b", "a*", "100%", &long, &deep] {
        assert!(matches!(store.create(account(1), bad, None).await, Err(StoreError::Name(_))), "{bad:?}");
        assert!(matches!(store.select(account(1), bad).await, Err(StoreError::Name(_))), "{bad:?}");
    }
    for good in ["作业/数学", "a.b", "../..", "INBOX/x", "a b"] {
        store.create(account(1), good, None).await.unwrap();
        store.select(account(1), good).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_outlive_their_mailboxes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.subscribe(account(1), "gone", true).await.unwrap();
    store.subscribe(account(1), "Trash", false).await.unwrap();
    let names = store.subscriptions(account(1)).await.unwrap();
    assert!(names.contains(&"gone".to_owned()) && !names.contains(&"Trash".to_owned()));
    assert!(!store.mailbox(account(1), "Trash").await.unwrap().subscribed);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_found_through_charsets_and_encodings() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let messages = [
        "Subject: =?utf-8?B?5L2g5aW9?= World\r\nX-Only:\r\n\r\nplain Text\r\n",
        "Subject: b\r\nContent-Type: text/plain; charset=gb18030\r\nContent-Transfer-Encoding: base64\r\n\r\nxOO6w8DPyqY=\r\n",
        "Subject: c\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/html; charset=utf-8\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\n<b>caf=C3=A9 so=\r\nft</b>\r\n--x--\r\n",
        "Subject: d\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner WORD\r\n\r\ninner body\r\n",
        "Subject: A\r\n LONG\r\n line\r\n\r\nbody\r\n",
        "Subject: =?utf-8?Q?hid=64en?=\r\n\r\n",
        "Content-Type: text/plain\r\nContent-Transfer-Encoding: BASE64\r\n\r\naGlkZGVu\r\n",
        "Content-Type: text/plain; charset=utf-8\r\n\r\n\u{212a}elvin\r\n",
    ];
    for message in messages {
        store.append(account(1), "INBOX", Bytes::from_static(message.as_bytes()), &[], 1).await.unwrap();
    }
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    let all = uids(&inbox);
    let check = async |needle: &str, place: Where, expected: &[u32]| {
        let found = store.search_text(&inbox, &all, needle, &place).await.unwrap();
        assert_eq!(found, expected, "{needle} {place:?}");
    };
    check("你好", Where::Header("subject".into()), &[1]).await;
    check("WORLD", Where::Header("Subject".into()), &[1]).await;
    check("", Where::Header("x-only".into()), &[1]).await;
    check("x", Where::Header("x-only".into()), &[]).await;
    check("TEXT", Where::Body, &[1]).await;
    check("老师", Where::Body, &[2]).await;
    check("CAFÉ", Where::Body, &[3]).await;
    check("soft", Where::Body, &[3]).await;
    check("word", Where::Body, &[4]).await;
    check("subject: d", Where::Text, &[4]).await;
    check("subject: d", Where::Body, &[]).await;
    check("=C3", Where::Text, &[]).await;
    check("subject: a long", Where::Text, &[5]).await;
    check("long", Where::Text, &[5]).await;
    check("nowhere", Where::Text, &[]).await;
    check("hidden", Where::Text, &[6, 7]).await;
    check("kelvin", Where::Text, &[8]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_before_anything_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Settings { free_space_min: Size::bytes(u64::MAX), ..settings() }).unwrap();
    let refused = store.deliver(text(1), vec![to(account(1), "")], at(1)).await;
    assert!(matches!(refused, Err(StoreError::Full)));
    assert_eq!(refused.unwrap_err().lmtp_reply().0, 452);
    let inbox = store.select(account(1), "INBOX").await.unwrap(); // what makes room works
    store.expunge(&inbox, &[1]).await.unwrap();
}

#[test]
fn a_batch_waits_for_half_of_those_who_asked_lately() {
    let start = clock::monotonic();
    let after = |millis| start + Duration::from_millis(millis);
    let mut callers = Callers::default();
    for millis in 0..50 {
        callers.asked(0, after(millis));
        assert_eq!(callers.half(after(millis)), 0, "one alone waits for nobody, however often it asks");
    }
    (1..=20).for_each(|caller| callers.asked(caller, after(50)));
    assert_eq!(callers.half(after(50)), 10);
    callers.asked(1, after(58));
    callers.asked(2, after(58));
    assert_eq!(callers.half(after(61)), 1, "who does not come again is not waited for");
}
