//! StartTLS as servers answer it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{SecureError, start_tls};
use crate::net::Stream;

/// What comes of StartTLS when the server answers this and says no more.
async fn answered(octets: &[u8]) -> Result<(), SecureError> {
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(octets).await.unwrap();
    far.shutdown().await.unwrap();
    let ended = start_tls(&mut Stream::from(near)).await;
    let mut asked = Vec::new();
    far.read_to_end(&mut asked).await.unwrap();
    assert_eq!(asked, b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037");
    ended
}

#[tokio::test]
async fn only_the_answer_and_nothing_behind_it_leads_to_tls() {
    let success = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00".to_vec();
    assert!(answered(&success).await.is_ok());
    let with = |at: usize, octet: u8| {
        let mut octets = success.clone();
        octets[at] = octet;
        octets
    };
    for behind in [&b"\x30"[..], b"\x00", &success, b"\x16\x03\x03"] {
        let ended = answered(&[&success, behind].concat()).await;
        assert!(matches!(ended, Err(SecureError::Injection)), "{behind:02x?}: {ended:?}");
    }
    assert!(matches!(answered(&with(9, 52)).await, Err(SecureError::Refused(_))), "unavailable");
    assert!(matches!(answered(&with(4, 2)).await, Err(SecureError::Answer)), "to another request");
    assert!(matches!(answered(&with(4, 0)).await, Err(SecureError::Answer)), "unasked");
    assert!(matches!(answered(&with(5, 0x61)).await, Err(SecureError::Answer)), "to a bind");
    assert!(matches!(answered(&with(0, 0x16)).await, Err(SecureError::Frame(_))), "no LDAP");
    assert!(matches!(answered(&with(1, 0x80)).await, Err(SecureError::Frame(_))), "indefinite length");
    assert!(matches!(answered(b"\x30\x84\x7f\xff\xff\xff").await, Err(SecureError::Frame(_))), "two gigabytes");
    assert!(matches!(answered(&success[..9]).await, Err(SecureError::Io(_))), "half of it");
}
