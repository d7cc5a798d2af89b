//! Rolls: what is packed comes out again, and a roll that does not fit its mailbox is not used.

use rusqlite::Connection;

use super::*;
use crate::pop_imap::store::roll::{pack, unpack};
use crate::pop_imap::store::view::{CHUNK_ROWS, MessageId, Rows};
use crate::pop_imap::store::{Flag, FlagChange, Flags};

fn row(uid: u32, size: u32, flags: u64, modseq: u64, internal_date: i64, message: u64) -> Row {
    Row { uid, size, flags: Flags::from_raw(flags), modseq, internal_date, message: MessageId(message) }
}

#[test]
fn what_is_packed_comes_out_again() {
    let like = |uid: u32| row(uid, 2_000 + uid % 7, u64::from(uid % 3), u64::from(uid) + 9, 1_700_000_000, 77);
    let check = |rows: Vec<Row>| {
        let packed = pack(&Rows::from_sorted(&rows));
        let found: Vec<Row> = unpack(&packed).unwrap().iter().copied().collect();
        assert_eq!(found, rows);
        packed.len()
    };
    check(Vec::new());
    check(vec![row(u32::MAX - 1, u32::MAX, u64::MAX >> 1, u64::MAX, i64::MIN, u64::MAX)]);
    check(vec![
        row(1, 0, 0, 0, -1, 0),
        row(2, u32::MAX, u64::MAX, u64::MAX, i64::MAX, u64::MAX),
        row(4_000_000_000, 1, 1, 1, 1, 1),
    ]);
    let chunk = u32::try_from(CHUNK_ROWS).unwrap();
    for count in [chunk - 1, chunk, chunk + 1, 5 * chunk + 3] {
        check((1..=count).map(like).collect());
    }
    let octets = check((1..=10 * chunk).map(like).collect());
    assert!(octets < 10 * CHUNK_ROWS * 8, "{octets}");
}

#[test]
fn what_is_no_roll_is_refused() {
    let rows: Vec<Row> = (1..600).map(|uid| row(uid, 5, 0, uid.into(), 0, uid.into())).collect();
    let packed = pack(&Rows::from_sorted(&rows));
    for at in 0..packed.len() {
        assert!(unpack(&packed[..at]).is_err(), "cut off at {at}");
        let mut flipped = packed.clone();
        flipped[at] ^= 0x10;
        assert!(unpack(&flipped).is_err(), "another octet at {at}");
    }
    let twice = [&packed[5..], &packed[5..]].concat();
    let head = [&packed[..1], crc32c::crc32c(&twice).to_le_bytes().as_slice()].concat();
    assert!(unpack(&[head, twice].concat()).is_err(), "UIDs do not ascend");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_that_does_not_fit_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..20 {
        store.deliver(text(number), vec![to(account(1), "")], at(number)).await.unwrap();
    }
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    let written = store.clone();
    tokio::task::spawn_blocking(move || written.write_rolls().unwrap()).await.unwrap();
    store.set_flags(&inbox, &[3, 19], FlagChange::Add, &[Flag::Seen], None).await.unwrap();
    store.expunge(&inbox, &[4]).await.unwrap();
    let expected = rows(&inbox);
    drop((store, inbox));
    let damages = [
        // As it is: the roll and what has changed since.
        "SELECT 1",
        "UPDATE roll SET rows = x'00'",
        "UPDATE roll SET rows = x''",
        "UPDATE roll SET rows = substr(rows, 1, 30)",
        "UPDATE roll SET rows = x'01'",
        "DELETE FROM roll_changed",
        "DELETE FROM roll",
    ];
    for damage in damages {
        let sql = Connection::open(dir.path().join(VIEW_FILE)).unwrap();
        let rolls: i64 = sql.query_row("SELECT count(*) FROM roll", [], |row| row.get(0)).unwrap();
        assert_eq!(rolls, 1, "before {damage}");
        sql.execute_batch(damage).unwrap();
        drop(sql);
        let store = open(dir.path());
        let inbox = store.select(account(1), "INBOX").await.unwrap();
        assert_eq!(rows(&inbox), expected, "{damage}");
        // Opening it has made another roll due.
        let written = store.clone();
        tokio::task::spawn_blocking(move || written.write_rolls().unwrap()).await.unwrap();
    }
}
