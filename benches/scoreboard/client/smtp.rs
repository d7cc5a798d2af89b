//! SMTP and LMTP, with pipelining.
//!
//! Owns: one session. Called by: the rows that deliver. Spec: RFC 5321, RFC 2033, RFC 2920.

use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::Wire;
use crate::Failure;

pub(crate) struct Smtp {
    wire: Wire,
    envelope: Vec<u8>,
}

impl Smtp {
    /// Connects and greets; `hello` is EHLO or LHLO.
    pub(crate) async fn connect(addr: SocketAddr, hello: &str) -> Result<Self, Failure> {
        let mut session = Self { wire: Wire::connect(addr).await?, envelope: Vec::with_capacity(256) };
        session.expect(b"220").await?;
        session.wire.send(format!("{hello} client.bench.test\r\n").as_bytes()).await?;
        session.expect(b"250").await?;
        Ok(session)
    }

    /// Signs in (RFC 4616).
    pub(crate) async fn sign_in(&mut self, user: &str, password: &str) -> Result<(), Failure> {
        let response = BASE64_STANDARD.encode(format!("\0{user}\0{password}"));
        self.wire.send(format!("AUTH PLAIN {response}\r\n").as_bytes()).await?;
        self.expect(b"235").await
    }

    /// One message to one recipient; returns when the server has answered for it. `text` ends with a lone dot.
    pub(crate) async fn send(&mut self, from: &str, to: &str, text: &[u8]) -> Result<(), Failure> {
        self.envelope.clear();
        for part in ["MAIL FROM:<", from, ">\r\nRCPT TO:<", to, ">\r\nDATA\r\n"] {
            self.envelope.extend_from_slice(part.as_bytes());
        }
        self.wire.send(&self.envelope).await?;
        self.expect(b"250").await?;
        self.expect(b"250").await?;
        self.expect(b"354").await?;
        self.wire.send(text).await?;
        self.expect(b"250").await
    }

    /// Takes leave.
    pub(crate) async fn quit(mut self) -> Result<(), Failure> {
        self.wire.send(b"QUIT\r\n").await?;
        self.expect(b"221").await
    }

    /// Reads one reply, of whatever number of lines (RFC 5321 section 4.2.1).
    async fn expect(&mut self, code: &[u8]) -> Result<(), Failure> {
        loop {
            let line = self.wire.line().await?;
            if line.get(3) == Some(&b'-') {
                continue;
            }
            if line.starts_with(code) {
                return Ok(());
            }
            return Err(format!("not {}: {}", String::from_utf8_lossy(code), String::from_utf8_lossy(&line)).into());
        }
    }
}
