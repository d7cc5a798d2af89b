//! Tests of the configuration.

use super::load;

#[test]
fn the_demo_loads() {
    let loaded = load::parse("etc/demo.toml".as_ref(), include_str!("../../etc/demo.toml"), &[]).unwrap();
    assert_eq!(loaded.effective("demo").unwrap().roles.len(), 3);
}
