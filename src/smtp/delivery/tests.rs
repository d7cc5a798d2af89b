//! What becomes of a message, by the fates of its recipients.

use super::super::lmtp::Fate;
use super::super::reply::{self, Reply};
use super::{Decision, decide};

fn fate(text: &str) -> Fate {
    match text {
        "ok" => Fate::Answered(Reply::new(250, 0, 0, "stored")),
        "no" => Fate::Answered(Reply::new(550, 1, 1, "no such user")),
        "gone" => Fate::Answered(Reply::new(552, 2, 2, "over quota")),
        "later" => Fate::Answered(Reply::new(451, 3, 0, "later")),
        "full" => Fate::Answered(Reply::new(452, 3, 1, "disk full")),
        "quota" => Fate::Answered(Reply::new(452, 2, 2, "mailbox full")),
        "away" => Fate::NotTried,
        "lost" => Fate::Unknown,
        other => panic!("{other}"),
    }
}

fn check(fates: &str, expected: &Decision) {
    let fates: Vec<Fate> = fates.split(' ').map(fate).collect();
    assert_eq!(&decide(&fates), expected, "{fates:?}");
}

fn keep(pending: &[usize], failed: &[usize]) -> Decision {
    let no = || Reply::new(550, 1, 1, "no such user");
    Decision::Keep { pending: pending.to_vec(), failed: failed.iter().map(|place| (*place, no())).collect() }
}

#[test]
fn the_reply_says_what_is_true_of_all_recipients() {
    check("ok", &Decision::Delivered);
    check("ok ok ok", &Decision::Delivered);
    // The client is still there: it hears why, nothing is kept.
    check("no", &Decision::Refuse(Reply::new(550, 1, 1, "no such user")));
    check("gone no", &Decision::Refuse(Reply::new(552, 2, 2, "over quota")));
    // Nothing was handed over.
    check("away", &keep(&[0], &[]));
    check("away away", &keep(&[0, 1], &[]));
    check("later", &keep(&[0], &[]));
    check("quota", &keep(&[0], &[]));
    // A full disk is said, not queued beside itself.
    check("full", &Decision::Refuse(reply::NO_ROOM));
    check("full full", &Decision::Refuse(reply::NO_ROOM));
    check("full quota", &keep(&[0, 1], &[]));
    check("full ok", &keep(&[0], &[]));
    // Who may have it must not get it twice from us.
    check("lost", &Decision::Refuse(reply::OUTCOME_UNKNOWN));
    check("lost lost", &Decision::Refuse(reply::OUTCOME_UNKNOWN));
    check("lost no away", &Decision::Refuse(reply::OUTCOME_UNKNOWN));
    // But when one has it for sure, 4yz would double it for that one.
    check("ok lost", &keep(&[1], &[]));
    // Mixed.
    check("ok no", &keep(&[], &[1]));
    check("no ok later", &keep(&[2], &[0]));
    check("no away", &keep(&[1], &[0]));
}
