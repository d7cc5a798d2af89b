//! Who holds how much.

use super::Rooms;

#[test]
fn room_is_bounded_together_and_for_an_account_and_comes_back() {
    let rooms = Rooms::new(100, 60);
    let (mut one, mut same, mut other) = (rooms.room([1; 16]), rooms.room([1; 16]), rooms.room([2; 16]));
    assert!(one.hold(30) && same.hold(20) && one.hold(40));
    assert!(!same.hold(21), "the account has its share");
    assert!(other.hold(40));
    assert!(!other.hold(41), "that is all there is");
    assert!(one.hold(10) && other.hold(60));
    drop(one);
    assert!(same.hold(40));
    drop((same, other));
    let held = rooms.held.lock().unwrap();
    assert!(held.all == 0 && held.accounts.is_empty());
}
