//! LDIF, line by line.

use super::write_line;

#[test]
fn values_are_shown_as_they_are_or_in_base_64_and_lines_are_folded() {
    let check = |value: &[u8], expected: &str| {
        let mut out = Vec::new();
        write_line(&mut out, "cn", value).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    };
    check(b"Anna", "cn: Anna\n");
    check(b"", "cn: \n");
    check(b"a: b < c", "cn: a: b < c\n");
    for (value, coded) in [
        (&b" a"[..], "IGE="),
        (b"a ", "YSA="),
        (b":a", "OmE="),
        (b"<a", "PGE="),
        (b"a\nb", "YQpi"),
        (b"a\rb", "YQ1i"),
        (b"a\0", "YQA="),
        ("ä".as_bytes(), "w6Q="),
        (b"\xff", "/w=="),
    ] {
        check(value, &format!("cn:: {coded}\n"));
    }
    let long = "x".repeat(72);
    check(long.as_bytes(), &format!("cn: {long}\n"));
    check(format!("{long}{long}yyyy").as_bytes(), &format!("cn: {long}\n {long}yyy\n y\n"));
}
