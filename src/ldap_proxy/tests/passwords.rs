//! Password hashes, each made by somebody else's program.

use crate::config::secret::SecretText;
use crate::ldap_proxy::hasher::Hasher;
use crate::ldap_proxy::password::{Given, PASSWORD_LEN_MAX, PasswordError, examine, hash, is_current, verify};

/// Hash of "secret", and who made it.
const OTHERS: &[(&str, &str)] = &[
    ("{SSHA}86ViTDmHyaaGX8LPHG0gPUH/vURID0LH", "slappasswd 2.5"),
    ("{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "slappasswd 2.5, qmail-ldap's default"),
    (
        "{ARGON2}$argon2i$v=19$m=4096,t=3,p=1$dHfdLAHuRqUDmLJTlpYP3w$Msfs4M0K4X6IZ+19Ie2ckwSeQUUFj8EGDQaI8fnT/0I",
        "slappasswd 2.5 with argon2.so",
    ),
    (
        "{SSHA512}osTAhYZtkZV6tfNp9CudpkzTUZFTiJiiU1fYSh6kiQivtkDXkQo8u06m/ulqt8LOkpfjrYZUjOpgktJdnIjU/fo5o/jW+ieu",
        "slappasswd 2.5 with pw-sha2.so",
    ),
    (
        "{SSHA512}/r6Ik5kOmMalyV15/NlpHVMD87CxOLNR3pBDIFkP8qDsrEt8nkzQAZIL5hLzWSxn0AaDAEvvuB8yjjneZbVrhoHz1r7TpUqO",
        "Python hashlib",
    ),
    (
        "{CRYPT}$6$CiSNSWg9P0PkM07L$0e//96ZeqUinrohJq.zrIC3njx4L9on/I7tFdo4/slJRshDQ/zwdZ/5hqmgG.qfN8K9DVfPWfcoBn3pQw1z8k.",
        "openssl passwd -6",
    ),
    (
        "{CRYPT}$6$rounds=20000$saltsaltsaltsalt$sFzO2MCWRwzjzbGPrQbb2GY/uCho0sQi7YpkOBLaZl/b/wCQD0ugkM69IJblgwXodWHy7PTONFHaxplT8g6uO1",
        "Python crypt (libxcrypt)",
    ),
    (
        "{crypt}$5$Bb8lnrBKqM88BkJB$9nHjaj.M3pd.ieBzf1cfFDbPmNOFqvpegCR.lkGS6j5",
        "Python crypt (libxcrypt); scheme in lower case",
    ),
    ("{CRYPT}$2b$05$WX3ULl6rdwdA2uMApYTKHewt5ElLW25Wr/577PvZ2rWCN2zUoXzKK", "Python crypt (libxcrypt)"),
    ("{CRYPT}$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a", "Python crypt (libxcrypt)"),
];

#[test]
fn hashes_of_other_programs_are_verified() {
    for (hash, maker) in OTHERS {
        assert_eq!(examine(hash.as_bytes()), Ok(Given::Hashed), "{maker}: {hash}");
        assert!(verify(b"secret", hash.as_bytes()), "{maker}: {hash}");
        for wrong in ["", "Secret", "secret ", "secre", "secrets"] {
            assert!(!verify(wrong.as_bytes(), hash.as_bytes()), "{maker}: {hash} for {wrong:?}");
        }
    }
}

#[test]
fn our_own_hash_is_argon2id_with_the_costs_that_owasp_names() {
    let (hash, other) = (hash(b"secret").unwrap(), hash(b"secret").unwrap());
    assert!(hash.starts_with("{ARGON2}$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert!(verify(b"secret", hash.as_bytes()));
    assert!(!verify(b"secreT", hash.as_bytes()));
    assert_eq!(examine(hash.as_bytes()), Ok(Given::Hashed));
    assert_ne!(hash, other, "salted");
}

#[test]
fn what_is_no_usable_hash_is_not_brought_in() {
    let check = |value: &str, expected| assert_eq!(examine(value.as_bytes()), expected, "{value:?}");
    check("secret", Ok(Given::Clear));
    check("{", Ok(Given::Clear));
    check("{not a scheme} secret", Ok(Given::Clear));
    check("", Err(PasswordError::Length));
    check(&"x".repeat(PASSWORD_LEN_MAX + 1), Err(PasswordError::Length));
    check("{CLEARTEXT}secret", Err(PasswordError::Scheme));
    check("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", Err(PasswordError::Scheme));
    check("{CRYPT}ab0123456789.", Err(PasswordError::Scheme)); // DES
    check("{CRYPT}$1$abcdefgh$Vq/0w8Xk3xkSv0dBxkmJF.", Err(PasswordError::Scheme)); // MD5 crypt
    check("{SSHA}not base64!", Err(PasswordError::Malformed));
    check("{SSHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", Err(PasswordError::Malformed)); // no salt
    check("{MD5}AAAA", Err(PasswordError::Malformed));
    check(
        "{ARGON2}$argon2id$v=19$m=4194304,t=3,p=1$c29tZXNhbHQ$gkpVOqVBiVMoFNm0FzGbO0vXoQkd4mLJJd7sQ2jkXbI",
        Err(PasswordError::TooCostly),
    );
    check("{ARGON2}$argon2id$v=19$m=19456,t=2,p=1", Err(PasswordError::Malformed));
    check("{CRYPT}$2b$31$WX3ULl6rdwdA2uMApYTKHewt5ElLW25Wr/577PvZ2rWCN2zUoXzKK", Err(PasswordError::TooCostly));
    check("{CRYPT}$6$rounds=900000000$salt$x", Err(PasswordError::TooCostly));
    check("{CRYPT}$6$salt$tooshort", Err(PasswordError::Malformed));
    check(&format!("{{SSHA}}{}", "A".repeat(600)), Err(PasswordError::Malformed));
}

#[tokio::test]
async fn a_hash_of_another_scheme_is_renewed_by_the_password_and_only_by_it() {
    let hasher = Hasher::new().unwrap();
    let matches_secret = |hash: &[u8]| verify(b"secret", hash);
    let verify = async |password: &str, hashes: &[&str]| {
        let hashes = hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect();
        let turn = hasher.turn().await.unwrap();
        turn.verify(SecretText::new(password.into()), hashes).await.unwrap()
    };
    let old = "{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==";
    let verified = verify("secret", &[old]).await.unwrap();
    assert_eq!(verified.stored, old.as_bytes());
    let renewed = verified.renewed.unwrap();
    assert!(is_current(renewed.as_bytes()) && matches_secret(renewed.as_bytes()));
    assert!(verify("wrong", &[old]).await.is_none());
    assert!(verify("secret", &[&renewed]).await.unwrap().renewed.is_none(), "nothing to improve");
    let check = |hash: &str, expected| assert_eq!(is_current(hash.as_bytes()), expected, "{hash}");
    check(old, false);
    check("{ARGON2}$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$gkpVOqVBiVMoFNm0FzGbO0vXoQkd4mLJJd7sQ2jkXbI", true);
    check("{ARGON2}$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQ$gkpVOqVBiVMoFNm0FzGbO0vXoQkd4mLJJd7sQ2jkXbI", false);
    check("{ARGON2}$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$gkpVOqVBiVMoFNm0FzGbO0vXoQkd4mLJJd7sQ2jkXbI", false);
}
