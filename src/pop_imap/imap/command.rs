//! IMAP commands: from a framed command to what is asked.
//!
//! Owns: `Command` and the translation from imap-codec's types, so that the rest of the room meets only what fife does.
//! Called by: `imap::session`. Never: decides whether a command is allowed now, or reads the store.
//! LIST and SEARCH are read by hand (`imap::list`, `imap::search`): imap-codec knows neither LIST-EXTENDED nor ESEARCH, refuses
//! searches nested more than eight deep (mail programs chain ORs), and 8-bit text in quoted strings.
//! Spec: RFC 3501 section 6 and those cited at each command.

use bytes::Bytes;
use imap_codec::CommandCodec;
use imap_codec::decode::Decoder;
use imap_types::auth::AuthMechanism;
use imap_types::command::{CommandBody, FetchModifier, SelectParameter, StoreModifier};
use imap_types::core::AString;
use imap_types::extensions::binary::LiteralOrLiteral8;
use imap_types::extensions::enable::CapabilityEnable;
use imap_types::fetch::{Macro, MacroOrMessageDataItemNames, MessageDataItemName, Part, Section as CodecSection};
use imap_types::flag::{StoreResponse, StoreType};
use imap_types::mailbox::Mailbox;

use super::cursor::Cursor;
use super::list::{ListError, ListRequest};
use super::name::{self, NameError};
use super::search::SearchRequest;
use super::section::{Partial, Section, What};
use super::set::Set;
use super::status::StatusItem;
use crate::config::secret::SecretText;
use crate::pop_imap::store::{Flag, FlagChange};

/// What a client asks.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Capability,
    Noop,
    Logout,
    Id,
    StartTls,
    Login {
        user: String,
        password: SecretText,
    },
    /// `initial`: the decoded initial response (RFC 4959).
    AuthenticatePlain {
        initial: Option<SecretBytes>,
    },
    AuthenticateOther,
    Enable {
        condstore: bool,
    },
    Select(SelectRequest),
    Create(String),
    Delete(String),
    Rename {
        from: String,
        to: String,
    },
    Subscribe {
        name: String,
        on: bool,
    },
    List(ListRequest),
    Namespace,
    Status {
        mailbox: String,
        items: Vec<StatusItem>,
    },
    Append(AppendRequest),
    Idle,
    Check,
    Close,
    Unselect,
    /// `uids`: UID EXPUNGE (RFC 4315).
    Expunge {
        uids: Option<Set>,
    },
    Search(SearchRequest),
    Fetch(FetchRequest),
    Store(StoreRequest),
    Copy(CopyRequest),
}

/// SELECT or EXAMINE.
#[derive(Debug, PartialEq, Eq)]
pub struct SelectRequest {
    pub mailbox: String,
    pub read_only: bool,
    pub condstore: bool,
}

/// APPEND.
#[derive(Debug, PartialEq, Eq)]
pub struct AppendRequest {
    pub mailbox: String,
    pub flags: Vec<Flag>,
    /// Seconds since 1970; none: now.
    pub date: Option<i64>,
    pub message: Bytes,
}

/// FETCH or UID FETCH.
#[derive(Debug, PartialEq, Eq)]
pub struct FetchRequest {
    pub set: Set,
    pub uid: bool,
    pub items: Vec<Item>,
    /// RFC 7162 section 3.1.4.1.
    pub changed_since: Option<u64>,
}

/// One thing to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Flags,
    Uid,
    InternalDate,
    Size,
    Envelope,
    Body,
    BodyStructure,
    ModSeq,
    /// BODY[…], BODY.PEEK[…]
    Section {
        section: Section,
        partial: Option<Partial>,
        peek: bool,
    },
    /// RFC822, RFC822.HEADER, RFC822.TEXT: the section, and the word that the answer repeats.
    Rfc822 {
        section: Section,
        word: &'static str,
        peek: bool,
    },
}

/// STORE or UID STORE.
#[derive(Debug, PartialEq, Eq)]
pub struct StoreRequest {
    pub set: Set,
    pub uid: bool,
    pub change: FlagChange,
    pub flags: Vec<Flag>,
    pub silent: bool,
    /// RFC 7162 section 3.1.3.
    pub unchanged_since: Option<u64>,
}

/// COPY, MOVE (RFC 6851), and their UID forms.
#[derive(Debug, PartialEq, Eq)]
pub struct CopyRequest {
    pub set: Set,
    pub uid: bool,
    pub mailbox: String,
    pub moving: bool,
}

/// Bytes that must not be seen in a log.
#[derive(PartialEq, Eq)]
pub struct SecretBytes(pub Vec<u8>);

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Why a command cannot be taken: always the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not a command, or not its grammar: BAD.
    #[error("Syntax error")]
    Syntax,
    /// Grammatical, and not offered: BAD.
    #[error("Command or option not supported")]
    Unsupported,
    /// NO.
    #[error(transparent)]
    Name(#[from] NameError),
    /// `\Recent`, or a keyword too long to keep: NO.
    #[error("Flag cannot be set")]
    Flag,
    /// NO [BADCHARSET (US-ASCII UTF-8)] (RFC 3501 section 6.4.4).
    #[error("Character set is not known")]
    Charset,
}

impl From<super::cursor::SyntaxError> for CommandError {
    fn from(_: super::cursor::SyntaxError) -> Self {
        Self::Syntax
    }
}

impl From<ListError> for CommandError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Syntax(_) => Self::Syntax,
            ListError::Name(error) => Self::Name(error),
        }
    }
}

/// Parses a whole command as `Framer` gives it. The tag was looked at by `frame::tag_of`.
pub fn parse(frame: &Bytes) -> Result<Command, CommandError> {
    let mut cursor = Cursor::new(frame);
    cursor.word(|byte| byte != b' ' && byte.is_ascii_graphic())?;
    cursor.expect(" ")?;
    if cursor.skip("LIST ") {
        return Ok(Command::List(ListRequest::parse(cursor, false)?));
    }
    if cursor.skip("LSUB ") {
        return Ok(Command::List(ListRequest::parse(cursor, true)?));
    }
    if cursor.skip("SEARCH ") {
        return Ok(Command::Search(SearchRequest::parse(cursor, false)?));
    }
    if cursor.skip("UID SEARCH ") {
        return Ok(Command::Search(SearchRequest::parse(cursor, true)?));
    }
    let (rest, command) = CommandCodec::default().decode(frame).map_err(|_| CommandError::Syntax)?;
    if !rest.is_empty() {
        return Err(CommandError::Syntax);
    }
    translate(frame, command.body)
}

#[expect(clippy::too_many_lines, reason = "one arm a command: a table")]
fn translate(frame: &Bytes, body: CommandBody<'_>) -> Result<Command, CommandError> {
    Ok(match body {
        CommandBody::Capability => Command::Capability,
        CommandBody::Noop => Command::Noop,
        CommandBody::Logout => Command::Logout,
        CommandBody::Id { .. } => Command::Id,
        CommandBody::StartTLS => Command::StartTls,
        CommandBody::Login { username, password } => Command::Login {
            user: utf8(username.as_ref())?,
            password: SecretText::new(utf8(password.declassify().as_ref())?),
        },
        CommandBody::Authenticate { mechanism: AuthMechanism::Plain, initial_response } => Command::AuthenticatePlain {
            initial: initial_response.map(|response| SecretBytes(response.declassify().to_vec())),
        },
        CommandBody::Authenticate { .. } => Command::AuthenticateOther,
        CommandBody::Enable { capabilities } => Command::Enable {
            condstore: capabilities.as_ref().iter().any(|capability| matches!(capability, CapabilityEnable::CondStore)),
        },
        CommandBody::Select { mailbox, parameters } => Command::Select(select(&mailbox, &parameters, false)?),
        CommandBody::Examine { mailbox, parameters } => Command::Select(select(&mailbox, &parameters, true)?),
        CommandBody::Create { mailbox } => Command::Create(mailbox_name(&mailbox)?),
        CommandBody::Delete { mailbox } => Command::Delete(mailbox_name(&mailbox)?),
        CommandBody::Rename { from, to } => Command::Rename { from: mailbox_name(&from)?, to: mailbox_name(&to)? },
        CommandBody::Subscribe { mailbox } => Command::Subscribe { name: mailbox_name(&mailbox)?, on: true },
        CommandBody::Unsubscribe { mailbox } => Command::Subscribe { name: mailbox_name(&mailbox)?, on: false },
        CommandBody::Namespace => Command::Namespace,
        CommandBody::Status { mailbox, item_names } => {
            let items: Option<Vec<StatusItem>> = item_names.iter().map(StatusItem::from_codec).collect();
            let items = items.ok_or(CommandError::Unsupported)?;
            if items.is_empty() {
                return Err(CommandError::Syntax);
            }
            Command::Status { mailbox: mailbox_name(&mailbox)?, items }
        }
        CommandBody::Append { mailbox, flags, date, message } => {
            // RFC 3516 section 4.4: literal8 belongs to BINARY, which is not offered.
            let LiteralOrLiteral8::Literal(literal) = message else { return Err(CommandError::Unsupported) };
            Command::Append(AppendRequest {
                mailbox: mailbox_name(&mailbox)?,
                flags: flags_of(flags.iter().map(ToString::to_string))?,
                date: date.map(|date| date.as_ref().timestamp()),
                message: slice_of(frame, literal.data()),
            })
        }
        CommandBody::Idle => Command::Idle,
        CommandBody::Check => Command::Check,
        CommandBody::Close => Command::Close,
        CommandBody::Unselect => Command::Unselect,
        CommandBody::Expunge => Command::Expunge { uids: None },
        CommandBody::ExpungeUid { sequence_set } => Command::Expunge { uids: Some(Set::from(&sequence_set)) },
        CommandBody::Fetch { sequence_set, macro_or_item_names, uid, modifiers } => {
            let mut request = FetchRequest {
                set: Set::from(&sequence_set),
                uid,
                items: items(macro_or_item_names)?,
                changed_since: None,
            };
            for modifier in &modifiers {
                match modifier {
                    FetchModifier::ChangedSince(modseq) => request.changed_since = Some(modseq.get()),
                    // RFC 7162 section 3.2.6: only after ENABLE QRESYNC, which is not offered.
                    FetchModifier::Vanished => return Err(CommandError::Unsupported),
                }
            }
            Command::Fetch(request)
        }
        CommandBody::Store { sequence_set, kind, response, flags, uid, modifiers } => Command::Store(StoreRequest {
            set: Set::from(&sequence_set),
            uid,
            change: match kind {
                StoreType::Add => FlagChange::Add,
                StoreType::Remove => FlagChange::Remove,
                StoreType::Replace => FlagChange::Replace,
            },
            flags: flags_of(flags.iter().map(ToString::to_string))?,
            silent: response == StoreResponse::Silent,
            unchanged_since: modifiers.first().map(|StoreModifier::UnchangedSince(modseq)| *modseq),
        }),
        CommandBody::Copy { sequence_set, mailbox, uid } => Command::Copy(CopyRequest {
            set: Set::from(&sequence_set),
            uid,
            mailbox: mailbox_name(&mailbox)?,
            moving: false,
        }),
        CommandBody::Move { sequence_set, mailbox, uid } => Command::Copy(CopyRequest {
            set: Set::from(&sequence_set),
            uid,
            mailbox: mailbox_name(&mailbox)?,
            moving: true,
        }),
        // Read by hand before they come here.
        CommandBody::List { .. } | CommandBody::Lsub { .. } | CommandBody::Search { .. } => {
            return Err(CommandError::Syntax);
        }
        CommandBody::Sort { .. }
        | CommandBody::Thread { .. }
        | CommandBody::Compress { .. }
        | CommandBody::GetQuota { .. }
        | CommandBody::GetQuotaRoot { .. }
        | CommandBody::SetQuota { .. } => return Err(CommandError::Unsupported),
    })
}

fn utf8(bytes: &[u8]) -> Result<String, CommandError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| CommandError::Syntax)
}

fn mailbox_name(mailbox: &Mailbox<'_>) -> Result<String, CommandError> {
    match mailbox {
        Mailbox::Inbox => Ok("INBOX".to_owned()),
        Mailbox::Other(other) => Ok(name::decode(other.inner().as_ref())?),
    }
}

fn select(
    mailbox: &Mailbox<'_>,
    parameters: &[SelectParameter],
    read_only: bool,
) -> Result<SelectRequest, CommandError> {
    for parameter in parameters {
        match parameter {
            SelectParameter::CondStore => {}
            SelectParameter::QResync { .. } => return Err(CommandError::Unsupported),
        }
    }
    Ok(SelectRequest { mailbox: mailbox_name(mailbox)?, read_only, condstore: !parameters.is_empty() })
}

fn flags_of(names: impl Iterator<Item = String>) -> Result<Vec<Flag>, CommandError> {
    let mut flags = Vec::new();
    for name in names {
        // RFC 3501 section 2.3.2: \Recent cannot be set; clients that copy a FETCH answer into APPEND mean no harm.
        if name.eq_ignore_ascii_case("\\Recent") {
            continue;
        }
        flags.push(Flag::parse(&name).ok_or(CommandError::Flag)?);
    }
    Ok(flags)
}

/// The literal as a part of the frame: no copy of a message.
fn slice_of(frame: &Bytes, data: &[u8]) -> Bytes {
    if data.is_empty() { Bytes::new() } else { frame.slice_ref(data) }
}

fn items(names: MacroOrMessageDataItemNames<'_>) -> Result<Vec<Item>, CommandError> {
    let names = match names {
        MacroOrMessageDataItemNames::Macro(Macro::All) => {
            return Ok(vec![Item::Flags, Item::InternalDate, Item::Size, Item::Envelope]);
        }
        MacroOrMessageDataItemNames::Macro(Macro::Fast) => {
            return Ok(vec![Item::Flags, Item::InternalDate, Item::Size]);
        }
        MacroOrMessageDataItemNames::Macro(_) => {
            return Ok(vec![Item::Flags, Item::InternalDate, Item::Size, Item::Envelope, Item::Body]);
        }
        MacroOrMessageDataItemNames::MessageDataItemNames(names) => names,
    };
    if names.is_empty() {
        return Err(CommandError::Syntax);
    }
    names.into_iter().map(item).collect()
}

fn item(name: MessageDataItemName<'_>) -> Result<Item, CommandError> {
    let whole = |what: What| Section { path: Vec::new(), what };
    Ok(match name {
        MessageDataItemName::Body => Item::Body,
        MessageDataItemName::BodyExt { section, partial, peek } => Item::Section {
            section: section.map_or_else(|| whole(What::Everything), section_of),
            partial: partial.map(|(offset, length)| Partial { offset, length: length.get() }),
            peek,
        },
        MessageDataItemName::BodyStructure => Item::BodyStructure,
        MessageDataItemName::Envelope => Item::Envelope,
        MessageDataItemName::Flags => Item::Flags,
        MessageDataItemName::InternalDate => Item::InternalDate,
        MessageDataItemName::Rfc822 => Item::Rfc822 { section: whole(What::Everything), word: "RFC822", peek: false },
        MessageDataItemName::Rfc822Header => {
            Item::Rfc822 { section: whole(What::Header), word: "RFC822.HEADER", peek: true }
        }
        MessageDataItemName::Rfc822Size => Item::Size,
        MessageDataItemName::Rfc822Text => {
            Item::Rfc822 { section: whole(What::Text), word: "RFC822.TEXT", peek: false }
        }
        MessageDataItemName::Uid => Item::Uid,
        MessageDataItemName::ModSeq => Item::ModSeq,
        MessageDataItemName::Binary { .. } | MessageDataItemName::BinarySize { .. } => {
            return Err(CommandError::Unsupported);
        }
    })
}

fn section_of(section: CodecSection<'_>) -> Section {
    let path = |part: Option<Part>| -> Vec<u32> {
        part.map(|Part(numbers)| numbers.as_ref().iter().map(|number| number.get()).collect()).unwrap_or_default()
    };
    let names = |names: &[AString<'_>]| names.iter().map(|name| name.as_ref().to_vec()).collect();
    match section {
        CodecSection::Part(part) => Section { path: path(Some(part)), what: What::Everything },
        CodecSection::Header(part) => Section { path: path(part), what: What::Header },
        CodecSection::HeaderFields(part, fields) => {
            Section { path: path(part), what: What::Fields { names: names(fields.as_ref()), not: false } }
        }
        CodecSection::HeaderFieldsNot(part, fields) => {
            Section { path: path(part), what: What::Fields { names: names(fields.as_ref()), not: true } }
        }
        CodecSection::Text(part) => Section { path: path(part), what: What::Text },
        CodecSection::Mime(part) => Section { path: path(Some(part)), what: What::Mime },
    }
}
