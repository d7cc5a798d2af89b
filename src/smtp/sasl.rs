//! SASL exchanges: PLAIN and LOGIN.
//!
//! Owns: what has been said so far in an exchange. Called by: `smtp::session`.
//! Never: checks a password (the caller asks the directory), logs what it reads.
//! Spec: RFC 4954 (AUTH in SMTP), RFC 4616 (PLAIN), draft-murchison-sasl-login (LOGIN).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::command::Mechanism;
use super::reply::{self, Reply};
use crate::config::secret::SecretText;

/// Octets of a login name, at most.
const LOGIN_LEN_MAX: usize = 320;
/// Octets of a password, at most: a longer one only serves to keep the password hash busy.
const PASSWORD_LEN_MAX: usize = 1024;

/// Who says to be whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// An address, as a rule; the directory decides what is a login.
    pub login: String,
    pub password: SecretText,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this challenge (a whole line) and give the answer to the exchange.
    Challenge(Exchange, &'static [u8]),
    Done(Credentials),
    Failed(Reply),
}

/// An exchange that waits for a line from the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Exchange {
    Plain,
    LoginName,
    LoginPassword { login: String },
}

/// `Username:` and `Password:` in base 64, as clients of LOGIN expect them to the letter.
const ASK_NAME: &[u8] = b"334 VXNlcm5hbWU6\r\n";
const ASK_PASSWORD: &[u8] = b"334 UGFzc3dvcmQ6\r\n";
const ASK_NOTHING: &[u8] = b"334 \r\n";

/// Begins an exchange. An initial response of `=` is an empty one (RFC 4954 section 4).
#[must_use]
pub fn begin(mechanism: Mechanism, initial: Option<&str>) -> Step {
    let (exchange, challenge) = match mechanism {
        Mechanism::Plain => (Exchange::Plain, ASK_NOTHING),
        Mechanism::Login => (Exchange::LoginName, ASK_NAME),
    };
    match initial {
        None => Step::Challenge(exchange, challenge),
        Some("=") => exchange.receive(b""),
        Some(text) => exchange.receive(text.as_bytes()),
    }
}

impl Exchange {
    /// Takes the client's line, without its `<CR><LF>`.
    #[must_use]
    pub fn receive(self, line: &[u8]) -> Step {
        if line == b"*" {
            return Step::Failed(reply::AUTH_CANCELLED);
        }
        let Some(text) = STANDARD.decode(line).ok().and_then(|octets| String::from_utf8(octets).ok()) else {
            return Step::Failed(reply::AUTH_MALFORMED);
        };
        match self {
            Self::Plain => plain(&text),
            Self::LoginName => Step::Challenge(Self::LoginPassword { login: text }, ASK_PASSWORD),
            Self::LoginPassword { login } => credentials(login, text),
        }
    }
}

/// `authzid NUL authcid NUL password` (RFC 4616 section 2).
fn plain(text: &str) -> Step {
    let mut parts = text.split('\0');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        // To act for someone else is not offered: an authorization identity is taken only when it is the same.
        (Some(authorize), Some(login), Some(password), None) if authorize.is_empty() || authorize == login => {
            credentials(login.to_owned(), password.to_owned())
        }
        _ => Step::Failed(reply::AUTH_MALFORMED),
    }
}

fn credentials(login: String, password: String) -> Step {
    let fits = (1..=LOGIN_LEN_MAX).contains(&login.len()) && (1..=PASSWORD_LEN_MAX).contains(&password.len());
    // An empty password would be an anonymous bind at an LDAP server (RFC 4513 section 5.1.2): never let one through.
    if fits && !login.contains(|c: char| c.is_control()) {
        Step::Done(Credentials { login, password: SecretText::new(password) })
    } else {
        Step::Failed(reply::AUTH_REFUSED)
    }
}
