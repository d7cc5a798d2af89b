//! What EHLO announces: no more than works.
//!
//! Owns: the list of extensions. Called by: `smtp::session`.
//! Spec: RFC 5321 section 4.1.1.1 (EHLO), and the RFC beside each.

/// What depends on the session.
#[derive(Debug)]
pub struct Offer<'a> {
    pub hostname: &'a str,
    pub message_size_max: usize,
    pub start_tls: bool,
    pub auth: bool,
}

impl Offer<'_> {
    /// Appends the whole answer to EHLO.
    pub fn write(&self, out: &mut Vec<u8>) {
        let size = format!("SIZE {}", self.message_size_max); // RFC 1870
        let mut lines = vec![self.hostname, "PIPELINING", "8BITMIME", "SMTPUTF8", &size, "CHUNKING", "DSN"]; // RFC 2920, 6152, 6531, 3030, 3461
        if self.start_tls {
            lines.push("STARTTLS"); // RFC 3207
        }
        if self.auth {
            lines.push("AUTH PLAIN LOGIN"); // RFC 4954
        }
        lines.push("ENHANCEDSTATUSCODES"); // RFC 2034
        let last = lines.len() - 1;
        for (at, line) in lines.iter().enumerate() {
            let mark = if at == last { ' ' } else { '-' };
            out.extend_from_slice(format!("250{mark}{line}\r\n").as_bytes());
        }
    }
}
