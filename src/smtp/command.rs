//! What a command line says.
//!
//! Owns: `Command`, and the strict reading of paths. Called by: `smtp::session`. smtp-proto reads the grammar; what it is lenient about
//! (arguments where there are none, what stands in a path) is checked here.
//! Never: knows the state of a session.
//! Spec: RFC 5321 section 4.1 (commands), RFC 6531 (UTF-8 in paths), RFC 1870 (SIZE), RFC 6152 (BODY), RFC 4954 (AUTH), RFC 3461 (DSN).

use std::borrow::Cow;

use smtp_proto::{
    AUTH_LOGIN, AUTH_PLAIN, Error, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_RET_FULL, MAIL_RET_HDRS, MAIL_SMTPUTF8,
    MailFrom, RCPT_NOTIFY_DELAY, RCPT_NOTIFY_FAILURE, RCPT_NOTIFY_NEVER, RCPT_NOTIFY_SUCCESS, RcptTo, Request,
};

use super::envelope::{Notify, Reports, Return};
use super::line::COMMAND_LEN_MAX;
use super::reply::{self, Reply};
use super::xtext;
use crate::base::address::Address;

/// Octets of the address in ORCPT, at most (RFC 3461 section 4.2 has 500 with its coding).
const ORIGINAL_LEN_MAX: usize = 500;
/// Digits of a size, at most.
const NUMBER_DIGITS_MAX: usize = 18;

/// A command with its arguments, ready to be decided on.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Helo { name: String },
    Ehlo { name: String },
    Mail(Mail),
    Rcpt(Rcpt),
    Data,
    Bdat { octets: usize, last: bool },
    Auth { mechanism: Mechanism, initial: Option<String> },
    StartTls,
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
}

/// The arguments of MAIL.
#[derive(Debug, PartialEq, Eq)]
pub struct Mail {
    /// None: the null reverse-path (RFC 5321 section 4.5.5).
    pub reverse_path: Option<Address>,
    /// Octets that the client means to send (RFC 1870); 0 when it does not say.
    pub size: usize,
    /// SMTPUTF8 was given (RFC 6531 section 3.4).
    pub smtputf8: bool,
    /// `AUTH=` was given (RFC 4954 section 5): taken where AUTH is offered, and not looked at, for nobody is trusted to vouch for others.
    pub auth: bool,
    /// RET and ENVID (RFC 3461 section 4.3 and 4.4).
    pub reports: Reports,
}

/// The arguments of RCPT.
#[derive(Debug, PartialEq, Eq)]
pub struct Rcpt {
    pub path: ForwardPath,
    /// NOTIFY (RFC 3461 section 4.1).
    pub notify: Notify,
    /// ORCPT, decoded (RFC 3461 section 4.2): type and address.
    pub original: Option<String>,
}

/// To whom.
#[derive(Debug, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<Postmaster>` without domain, which every server must take (RFC 5321 section 4.5.1).
    Postmaster,
    Mailbox(Address),
}

/// A SASL mechanism that we can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Never standardised, still what some clients do.
    Login,
}

/// The line is no command that we do.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reply: Reply,
    /// What follows cannot be told from commands any more: a chunk of unknown length.
    pub closes: bool,
}

impl From<Reply> for Refusal {
    fn from(reply: Reply) -> Self {
        Self { reply, closes: false }
    }
}

/// Reads a line, given without its `<CR><LF>`.
///
/// # Errors
/// The reply that the client gets.
pub fn parse(line: &[u8]) -> Result<Command, Refusal> {
    let text = std::str::from_utf8(line).map_err(|_| reply::NOT_TEXT)?;
    if line.len() + 2 > COMMAND_LEN_MAX && !is_verb(text, "AUTH") {
        return Err(reply::LINE_TOO_LONG.into());
    }
    if has_endless_number(text) {
        return Err(Refusal { reply: reply::SYNTAX, closes: is_verb(text, "BDAT") });
    }
    let (original, text) = match take_original(text) {
        Ok(Some((original, rest))) => (Some(original), Cow::Owned(rest)),
        Ok(None) => (None, Cow::Borrowed(text)),
        Err(reply) => return Err(reply.into()),
    };
    let text = text.as_ref();
    // smtp-proto finds the end of a line by its <LF>.
    let terminated = [without_literal(text).as_bytes(), b"\r\n"].concat();
    let request = Request::parse(&mut terminated.iter()).map_err(|error| refusal(&error, text))?;
    let alone = |command| if text.trim_end().contains(' ') { Err(reply::NO_ARGUMENT.into()) } else { Ok(command) };
    match request {
        Request::Helo { host } => Ok(Command::Helo { name: host.into_owned() }),
        Request::Ehlo { host } => Ok(Command::Ehlo { name: host.into_owned() }),
        Request::Mail { from } => mail(&from, text).map(Command::Mail),
        Request::Rcpt { to } => rcpt(&to, text, original).map(Command::Rcpt),
        Request::Data => alone(Command::Data),
        Request::Bdat { chunk_size, is_last } => Ok(Command::Bdat { octets: chunk_size, last: is_last }),
        Request::Auth { mechanism, initial_response } => auth(mechanism, &initial_response),
        Request::StartTls => alone(Command::StartTls),
        Request::Rset => alone(Command::Rset),
        Request::Quit => alone(Command::Quit),
        Request::Noop { .. } => Ok(Command::Noop),
        Request::Vrfy { .. } => Ok(Command::Vrfy),
        Request::Help { .. } => Ok(Command::Help),
        Request::Expn { .. } | Request::Etrn { .. } | Request::Atrn { .. } | Request::Burl { .. } => {
            Err(reply::NOT_IMPLEMENTED.into())
        }
        // LHLO is for LMTP, which is never spoken on an SMTP port (RFC 2033 section 5).
        Request::Lhlo { .. } => Err(reply::UNKNOWN_COMMAND.into()),
    }
}

fn is_verb(text: &str, verb: &str) -> bool {
    text.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(verb))
}

/// smtp-proto 0.2.5 begins anew when a number grows beyond 64 bits, so that a chunk would be read as shorter than the client means it, and its
/// rest as commands. No size needs more than 18 digits (RFC 1870 section 6.1 allows 20).
fn has_endless_number(text: &str) -> bool {
    let of_size = |word: &&str| word.get(..5).is_some_and(|key| key.eq_ignore_ascii_case("SIZE="));
    let endless = |word: &str| word.bytes().filter(u8::is_ascii_digit).count() > NUMBER_DIGITS_MAX;
    (is_verb(text, "BDAT") && endless(text)) || text.split(' ').filter(of_size).any(endless)
}

fn refusal(error: &Error, text: &str) -> Refusal {
    let reply = match error {
        Error::UnknownCommand => reply::UNKNOWN_COMMAND,
        Error::InvalidSenderAddress => reply::BAD_SENDER,
        Error::InvalidRecipientAddress => reply::BAD_RECIPIENT,
        Error::SyntaxError { syntax } => reply::SYNTAX.with_text(format!("syntax: {syntax}")),
        Error::InvalidParameter { param } => reply::SYNTAX.with_text(format!("syntax error in {param}")),
        Error::UnsupportedParameter { .. } => reply::UNSUPPORTED_PARAMETER,
        Error::NeedsMoreData { .. } | Error::ResponseTooLong | Error::InvalidResponse { .. } => reply::SYNTAX,
    };
    Refusal { reply, closes: is_verb(text, "BDAT") }
}

fn mail(from: &MailFrom<Cow<'_, str>>, text: &str) -> Result<Mail, Refusal> {
    let path = path(text).ok_or(reply::BAD_SENDER)?;
    let reverse_path = match path {
        "" => None,
        path => Some(mailbox(path).ok_or(reply::BAD_SENDER)?),
    };
    let known = MAIL_BODY_7BIT | MAIL_BODY_8BITMIME | MAIL_SMTPUTF8 | MAIL_RET_FULL | MAIL_RET_HDRS;
    if from.flags & smtp_proto::MAIL_BODY_BINARYMIME != 0 {
        return Err(reply::BINARY.into());
    }
    // Only what EHLO announced is taken (RFC 5321 section 4.1.1.11): a sender that asks for a priority or a date must not
    // think that it got it.
    let other = from.flags & !known != 0
        || from.trans_id.is_some()
        || from.by != 0
        || from.solicit.is_some()
        || from.mtrk.is_some()
        || from.hold_for != 0
        || from.hold_until != 0
        || from.mt_priority != 0;
    if other {
        return Err(reply::UNSUPPORTED_PARAMETER.into());
    }
    let smtputf8 = from.flags & MAIL_SMTPUTF8 != 0;
    // RFC 6531 section 3.5: without the parameter no address beyond ASCII.
    if !smtputf8 && reverse_path.as_ref().is_some_and(|address| !address.is_ascii()) {
        return Err(reply::SENDER_NEEDS_SMTPUTF8.into());
    }
    let returned = match from.flags & (MAIL_RET_FULL | MAIL_RET_HDRS) {
        0 => None,
        MAIL_RET_FULL => Some(Return::Full),
        MAIL_RET_HDRS => Some(Return::Header),
        // RFC 3461 section 4.3: one of them, once.
        _ => return Err(reply::SYNTAX.into()),
    };
    let envelope_id = from.env_id.as_ref().map(|id| id.to_string());
    if envelope_id.as_ref().is_some_and(|id| !id.bytes().all(|octet| octet.is_ascii_graphic() || octet == b' ')) {
        return Err(reply::SYNTAX.into());
    }
    let reports = Reports { returned, envelope_id };
    Ok(Mail { reverse_path, size: from.size, smtputf8, auth: from.auth.is_some(), reports })
}

fn rcpt(to: &RcptTo<Cow<'_, str>>, text: &str, original: Option<String>) -> Result<Rcpt, Refusal> {
    let flags = [
        (RCPT_NOTIFY_SUCCESS, Notify::SUCCESS),
        (RCPT_NOTIFY_FAILURE, Notify::FAILURE),
        (RCPT_NOTIFY_DELAY, Notify::DELAY),
        (RCPT_NOTIFY_NEVER, Notify::NEVER),
    ];
    let known = flags.iter().fold(0, |all, (flag, _)| all | flag);
    if to.rrvs != 0 || to.flags & !known != 0 {
        return Err(reply::UNSUPPORTED_PARAMETER.into());
    }
    let given = flags.iter().filter(|(flag, _)| to.flags & flag != 0);
    let notify = given.fold(Notify::default(), |all, (_, notify)| all.and(*notify));
    // RFC 3461 section 4.1: NEVER stands alone.
    if notify != Notify::NEVER && to.flags & RCPT_NOTIFY_NEVER != 0 {
        return Err(reply::SYNTAX.into());
    }
    let path = path(text).ok_or(reply::BAD_RECIPIENT)?;
    let path = if path.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        ForwardPath::Mailbox(mailbox(path).ok_or(reply::BAD_RECIPIENT)?)
    };
    Ok(Rcpt { path, notify, original })
}

/// The line with a name in place of an address literal (RFC 5321 section 4.1.3), which smtp-proto 0.2.5 does not take; the path is read from the line itself.
fn without_literal(text: &str) -> Cow<'_, str> {
    let literal = path(text).filter(|path| path.ends_with(']')).and_then(|path| path.get(path.rfind("@[")? + 1..));
    match literal {
        Some(literal) => Cow::Owned(text.replacen(&format!("@{literal}>"), "@literal>", 1)),
        None => Cow::Borrowed(text),
    }
}

/// Cuts ORCPT out of a line with RCPT: smtp-proto 0.2.5 knows no address type but rfc822, and gives it without its type. Gives type and address, and the rest of the line.
fn take_original(text: &str) -> Result<Option<(String, String)>, Reply> {
    if !is_verb(text, "RCPT") {
        return Ok(None);
    }
    // In a quoted local part there can be anything; parameters come after the path.
    let (Some((before, _)), Some(path)) = (text.split_once('<'), path(text)) else { return Ok(None) };
    let (before, after) = text.split_at_checked(before.len() + 1 + path.len()).ok_or(reply::SYNTAX)?;
    let is_it = |word: &&str| word.get(..6).is_some_and(|key| key.eq_ignore_ascii_case("ORCPT="));
    let mut found = after.split(' ').filter(is_it);
    let Some(word) = found.next() else { return Ok(None) };
    let value = word.get(6..).unwrap_or_default();
    let (kind, coded) = value.split_once(';').ok_or(reply::SYNTAX)?;
    let good_kind = !kind.is_empty() && kind.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    let address =
        xtext::decode(coded).filter(|address| good_kind && address.len() <= ORIGINAL_LEN_MAX).ok_or(reply::SYNTAX)?;
    if found.next().is_some() {
        return Err(reply::SYNTAX);
    }
    let rest = after.split(' ').filter(|word| !is_it(word)).collect::<Vec<_>>().join(" ");
    Ok(Some((format!("{};{address}", kind.to_ascii_lowercase()), format!("{before}{rest}"))))
}

fn auth(mechanism: u64, initial: &str) -> Result<Command, Refusal> {
    let mechanism = match mechanism {
        AUTH_PLAIN => Mechanism::Plain,
        AUTH_LOGIN => Mechanism::Login,
        _ => return Err(reply::AUTH_MECHANISM.into()),
    };
    Ok(Command::Auth { mechanism, initial: (!initial.is_empty()).then(|| initial.to_owned()) })
}

/// What stands between the angle brackets. smtp-proto unquotes the local part, after which `"a b"@c` and `a b@c` look the same, so the
/// text itself is read.
fn path(text: &str) -> Option<&str> {
    let (_, inner) = text.split_once('<')?;
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return inner.get(..at),
            _ => {}
        }
    }
    None
}

/// A mailbox, of which a source route is dropped (RFC 5321 section 4.1.1.3: accepted and ignored).
fn mailbox(path: &str) -> Option<Address> {
    let mailbox = if path.starts_with('@') { path.split_once(':')?.1 } else { path };
    mailbox.parse().ok()
}
