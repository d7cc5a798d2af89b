//! The view on disk.

use crate::ldap_proxy::view::View;

/// A bulk load ended in "unable to open database file": the sandbox shows the role no directory for temporary files.
#[test]
fn sqlite_needs_no_place_for_temporary_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("view.sqlite");
    let writer = View::open(&path).unwrap();
    let reader = View::open_reader(&path).unwrap();
    assert_eq!((writer.temp_store(), reader.temp_store()), (2, 2));
}

#[test]
fn a_view_that_is_not_a_database_is_told_as_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("view.sqlite");
    std::fs::write(&path, [0x55; 9000]).unwrap();
    let Err(error) = View::open(&path) else { panic!("opened") };
    assert!(error.is_damage(), "{error}");
}
