//! LDAP server session: received octets in, steps out.
//!
//! Owns: the input buffer, who the connection is, which requests make sense. Called by: `serve`.
//! Never: reads a socket, the store or the clock; what needs them comes out as `Work`.
//! Spec: RFC 4511 (protocol), RFC 4513 (authentication), RFC 2696 (paged results), RFC 3062 (password modify),
//! RFC 4532 (WhoAmI), draft-wahl-ldap-session (session tracking).
//!
//! Requests are answered one after the other, so there is nothing that an Abandon could reach.

use std::net::IpAddr;
use std::time::Duration;

use bytes::BytesMut;
use ldap3_proto::LdapCodec;
use ldap3_proto::control::LdapControl;
use ldap3_proto::proto::{
    LdapBindCred, LdapBindRequest, LdapBindResponse, LdapExtendedRequest, LdapExtendedResponse, LdapMsg, LdapOp,
    LdapPasswordModifyRequest, LdapPasswordModifyResponse, LdapResult, LdapResultCode as Code, LdapSearchRequest,
};
use tokio_util::codec::{Decoder, Encoder};
use tracing::subscriber::NoSubscriber;

use super::access::{Office, Who};
use super::change::{Change, Modification};
use super::dn::Dn;
use super::entry::Selection;
use super::filter;
use super::frame::{Head, Kind, head};
use super::plan::Cursor;
use super::publish;
use super::refusal::Refusal;
use super::search::{Page, Search};
use crate::config::hosts::Role;
use crate::config::secret::SecretText;
use crate::directory::frame;

/// Octets of a request from somebody who has not said who he is: enough for a bind or a search.
const ANONYMOUS_LEN_MAX: usize = 16 * 1024;
/// Assertions in a filter of such a request: strangers read the root DSE and the schema, where every assertion goes through every definition.
const ANONYMOUS_ASSERTIONS_MAX: usize = 16;
/// Entries of one page.
const PAGE_SIZE_MAX: usize = 10_000;

/// What is known of the connection under the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Channel {
    /// User at the other end of a unix socket.
    pub(super) uid: Option<u32>,
    /// That user is root or the one that this process runs as.
    pub(super) is_owner: bool,
    /// That user is one of fife's roles: this one.
    pub(super) role: Option<Role>,
    /// At the other end is another host of the site: it has shown its certificate.
    pub(super) is_site: bool,
    /// Where logins over this connection come from, unless somebody who is believed says otherwise; none for this machine.
    pub(super) client: Option<IpAddr>,
    /// Nobody can listen in: unix socket or loopback.
    pub(super) is_local: bool,
    pub(super) is_tls: bool,
    /// StartTLS can be had.
    pub(super) offers_tls: bool,
}

impl Channel {
    fn is_confidential(self) -> bool {
        self.is_local || self.is_tls
    }

    /// Whom SASL EXTERNAL makes of it (RFC 4513 section 5.2.3).
    fn external(self) -> Option<Who> {
        match self.uid {
            Some(uid) if self.is_owner => Some(Who::System { uid }),
            Some(uid) => self.role.map(|role| Who::Role { uid, role }),
            None if self.is_site => Some(Who::Host),
            None => None,
        }
    }
}

/// What the caller is to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Read more octets.
    More,
    /// Send this.
    Reply(LdapMsg),
    /// Do this, and send what `answer` or `bound` makes of the outcome.
    Work(Work),
    /// Send this, then shake hands, then call `secured`.
    StartTls(LdapMsg),
    /// Send this, if anything, and close.
    Close(Option<LdapMsg>),
}

/// A request that needs the store.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) id: i32,
    pub(super) kind: Kind,
    pub(super) operation: Operation,
}

#[derive(Debug)]
pub(super) enum Operation {
    Bind {
        dn: Dn,
        password: SecretText,
        /// Where the login comes from; none: from this machine, for nobody in particular.
        client: Option<IpAddr>,
    },
    Search(Box<Search>),
    Change(Change),
    Compare {
        dn: Dn,
        attribute: String,
        value: Vec<u8>,
    },
    SetPassword {
        dn: Dn,
        old: Option<SecretText>,
        new: Option<SecretText>,
    },
}

pub(super) struct Session {
    who: Who,
    /// For whom it asks is believed: a role's socket, or a service has bound here once.
    vouches: bool,
    channel: Channel,
    buffer: BytesMut,
    codec: LdapCodec,
    len_max: usize,
}

impl Session {
    /// `len_max`: octets of a request, at most.
    pub(super) fn new(channel: Channel, len_max: usize) -> Self {
        let codec = LdapCodec::new(Some(len_max), Some(frame::NESTING_MAX + 2));
        let vouches = channel.is_owner || channel.role.is_some() || channel.is_site;
        Self { who: Who::Anonymous, vouches, channel, buffer: BytesMut::new(), codec, len_max }
    }

    pub(super) fn who(&self) -> &Who {
        &self.who
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel
    }

    /// Takes octets in. The caller reads no more while `next` has something to do, so the buffer stays below one request and one read.
    pub(super) fn receive(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// Whether a request has begun and is not whole.
    pub(super) fn is_amid_request(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next thing to do.
    pub(super) fn next(&mut self) -> Step {
        loop {
            let len_max = if self.who == Who::Anonymous { self.len_max.min(ANONYMOUS_LEN_MAX) } else { self.len_max };
            let head = match head(&self.buffer, len_max) {
                Ok(Some(head)) => head,
                Ok(None) => return Step::More,
                // RFC 4511 section 4.1.1: protocolError in a notice of disconnection, then the end.
                Err(error) => return Step::Close(Some(notice(Code::ProtocolError, &error.to_string()))),
            };
            let octets = self.buffer.split_to(head.len);
            match head.kind {
                Kind::Unbind => return Step::Close(None),
                Kind::Abandon => {}
                Kind::Bind
                | Kind::Search
                | Kind::Modify
                | Kind::Add
                | Kind::Delete
                | Kind::ModifyDn
                | Kind::Compare
                | Kind::Extended => return self.request(&head, octets),
            }
        }
    }

    fn request(&mut self, head: &Head, octets: BytesMut) -> Step {
        let refuse = |refusal| Step::Reply(answer(head.id, head.kind, Err(refusal)));
        // RFC 4511 section 4.1.11.
        if let Some(unknown) = head.critical.iter().find(|oid| !publish::CONTROLS.contains(&oid.as_str())) {
            let text = format!("control {unknown} is not supported");
            return refuse(Refusal::new(Code::UnavailableCriticalExtension, text));
        }
        let Some(message) = self.decode(octets) else {
            return refuse(Refusal::new(Code::ProtocolError, "the request is malformed"));
        };
        let decided = match message.op {
            LdapOp::BindRequest(request) => return self.bind(head.id, request, &message.ctrl),
            LdapOp::ExtendedRequest(request) => return self.extended(head.id, &request),
            LdapOp::SearchRequest(request) => {
                search(request, message.ctrl, self.assertions_max()).map(|one| Operation::Search(Box::new(one)))
            }
            LdapOp::ModifyRequest(request) => name(&request.dn).map(|dn| {
                let one = |change: ldap3_proto::proto::LdapModify| Modification {
                    kind: change.operation,
                    name: change.modification.atype,
                    values: change.modification.vals,
                };
                let modifications = request.changes.into_iter().map(one).collect();
                Operation::Change(Change::Modify { dn, modifications })
            }),
            LdapOp::AddRequest(request) => name(&request.dn).map(|dn| {
                let attributes = request.attributes.into_iter().map(|one| (one.atype, one.vals)).collect();
                Operation::Change(Change::Add { dn, attributes })
            }),
            LdapOp::DelRequest(dn) => name(&dn).map(|dn| Operation::Change(Change::Delete { dn })),
            LdapOp::ModifyDNRequest(request) => rename(&request).map(Operation::Change),
            LdapOp::CompareRequest(request) => {
                name(&request.dn).map(|dn| Operation::Compare { dn, attribute: request.atype, value: request.val })
            }
            // The tag said that it is one of the above.
            LdapOp::UnbindRequest
            | LdapOp::AbandonRequest(_)
            | LdapOp::BindResponse(_)
            | LdapOp::SearchResultEntry(_)
            | LdapOp::SearchResultDone(_)
            | LdapOp::SearchResultReference(_)
            | LdapOp::ModifyResponse(_)
            | LdapOp::AddResponse(_)
            | LdapOp::DelResponse(_)
            | LdapOp::ModifyDNResponse(_)
            | LdapOp::CompareResult(_)
            | LdapOp::ExtendedResponse(_)
            | LdapOp::IntermediateResponse(_) => Err(Refusal::new(Code::ProtocolError, "not a request")),
        };
        match decided {
            Ok(operation) => Step::Work(Work { id: head.id, kind: head.kind, operation }),
            Err(refusal) => refuse(refusal),
        }
    }

    fn assertions_max(&self) -> usize {
        if self.who == Who::Anonymous { ANONYMOUS_ASSERTIONS_MAX } else { filter::ASSERTIONS_MAX }
    }

    /// Parses one whole message. The codec's own log lines are cut off: they show what it parses, passwords included.
    fn decode(&mut self, mut octets: BytesMut) -> Option<LdapMsg> {
        let codec = &mut self.codec;
        tracing::subscriber::with_default(NoSubscriber::new(), || codec.decode(&mut octets)).ok().flatten()
    }

    fn bind(&mut self, id: i32, request: LdapBindRequest, controls: &[LdapControl]) -> Step {
        // RFC 4511 section 4.2.1: whatever comes of it, the connection is nobody's until it has succeeded.
        self.who = Who::Anonymous;
        let refuse = |code, text: &str| Step::Reply(answer(id, Kind::Bind, Err(Refusal::new(code, text))));
        if request.version != 3 {
            return refuse(Code::ProtocolError, "LDAP version 3 is spoken here");
        }
        match request.cred {
            LdapBindCred::Simple(password) => match Dn::parse(&request.dn) {
                Err(error) => refuse(Code::InvalidDNSyntax, &error.to_string()),
                // RFC 4513 section 5.1.1.
                Ok(dn) if dn.is_root() && password.is_empty() => Step::Reply(answer(id, Kind::Bind, Ok(()))),
                // RFC 4513 section 5.1.2: a name without password must not look like a login.
                Ok(_) if password.is_empty() => refuse(Code::UnwillingToPerform, "a bind with a name needs a password"),
                Ok(_) if !self.channel.is_confidential() => {
                    refuse(Code::ConfidentialityRequired, "passwords only over TLS")
                }
                Ok(dn) => {
                    let client = self.client_of(controls);
                    let operation = Operation::Bind { dn, password: SecretText::new(password), client };
                    Step::Work(Work { id, kind: Kind::Bind, operation })
                }
            },
            LdapBindCred::SASL(sasl) if sasl.mechanism.eq_ignore_ascii_case("EXTERNAL") => {
                // An authorization identity would ask to be somebody else (RFC 4513 section 5.2.3).
                match self.channel.external().filter(|_| sasl.credentials.is_empty()) {
                    Some(who) => {
                        self.who = who;
                        Step::Reply(answer(id, Kind::Bind, Ok(())))
                    }
                    None => refuse(Code::InvalidCredentials, "nothing outside says who this is"),
                }
            }
            LdapBindCred::SASL(_) | LdapBindCred::Unsupported => refuse(
                Code::AuthMethodNotSupported,
                "simple bind, or SASL EXTERNAL over the unix socket and between hosts of the site",
            ),
        }
    }

    /// The end of a bind: the answer, and the connection is somebody's.
    pub(super) fn bound(&mut self, id: i32, outcome: Result<(Who, Office), Refusal>) -> LdapMsg {
        let outcome = outcome.map(|(who, office)| {
            self.who = who;
            self.vouches |= office.vouches();
        });
        answer(id, Kind::Bind, outcome)
    }

    /// Where a login comes from. What the control says counts from those only who could also leave it out.
    #[expect(clippy::wildcard_enum_match_arm, reason = "one control of many is looked for")]
    fn client_of(&self, controls: &[LdapControl]) -> Option<IpAddr> {
        let told = controls.iter().find_map(|control| match control {
            LdapControl::Unknown { oid, value: Some(value), .. } if oid == publish::SESSION_TRACKING => Some(value),
            _ => None,
        });
        let told = told.and_then(|value| source_ip(value));
        told.filter(|_| self.vouches).or(self.channel.client)
    }

    fn extended(&mut self, id: i32, request: &LdapExtendedRequest) -> Step {
        let refuse = |code, text: &str| Step::Reply(answer(id, Kind::Extended, Err(Refusal::new(code, text))));
        match request.name.as_str() {
            publish::WHO_AM_I => {
                let identity = self.who.authorization_identity().into_bytes();
                Step::Reply(extended_response(id, success(), None, Some(identity)))
            }
            publish::START_TLS if self.channel.is_tls => refuse(Code::OperationsError, "TLS is there already"),
            publish::START_TLS if !self.channel.offers_tls => refuse(Code::ProtocolError, "TLS cannot be had here"),
            // What came behind the request came in the clear and pretends to come after the handshake.
            publish::START_TLS if !self.buffer.is_empty() => {
                Step::Close(Some(notice(Code::ProtocolError, "octets behind StartTLS")))
            }
            publish::START_TLS => {
                let name = Some(publish::START_TLS.to_owned());
                Step::StartTls(extended_response(id, success(), name, None))
            }
            publish::PASSWORD_MODIFY => match self.password_modify(request) {
                Ok(operation) => Step::Work(Work { id, kind: Kind::Extended, operation }),
                Err(refusal) => Step::Reply(answer(id, Kind::Extended, Err(refusal))),
            },
            // RFC 4511 section 4.12.
            _ => refuse(Code::ProtocolError, "unknown extended operation"),
        }
    }

    /// RFC 3062 section 2.
    fn password_modify(&self, request: &LdapExtendedRequest) -> Result<Operation, Refusal> {
        if !self.channel.is_confidential() {
            return Err(Refusal::new(Code::ConfidentialityRequired, "passwords only over TLS"));
        }
        let malformed = |_| Refusal::new(Code::ProtocolError, "the request is malformed");
        let request = match request.value {
            // Every field may be left out, and then the value too.
            None => LdapPasswordModifyRequest { user_identity: None, old_password: None, new_password: None },
            Some(_) => LdapPasswordModifyRequest::try_from(request).map_err(malformed)?,
        };
        let dn = match request.user_identity.as_deref().unwrap_or_default() {
            "" => match &self.who {
                Who::User { dn, .. } => dn.clone(),
                Who::Anonymous | Who::System { .. } | Who::Role { .. } | Who::Host => {
                    return Err(Refusal::new(Code::UnwillingToPerform, "whose password?"));
                }
            },
            identity => name(identity.strip_prefix("dn:").unwrap_or(identity))?,
        };
        Ok(Operation::SetPassword {
            dn,
            old: request.old_password.map(SecretText::new),
            new: request.new_password.map(SecretText::new),
        })
    }

    /// The handshake is done: what was said before counts no more (RFC 4513 section 3.1.5 leaves this to the server).
    pub(super) fn secured(&mut self) {
        self.channel.is_tls = true;
        self.who = Who::Anonymous;
        self.vouches = false;
    }
}

/// sessionSourceIp of draft-wahl-ldap-session section 2: the first of four texts.
fn source_ip(value: &[u8]) -> Option<IpAddr> {
    frame::texts(value)?.first()?.parse().ok()
}

fn name(text: &str) -> Result<Dn, Refusal> {
    Dn::parse(text).map_err(Refusal::invalid_dn)
}

fn rename(request: &ldap3_proto::proto::LdapModifyDNRequest) -> Result<Change, Refusal> {
    let rdn = name(&request.newrdn)?;
    let (Some(rdn), true) = (rdn.rdn().cloned(), rdn.parent().is_root()) else {
        return Err(Refusal::invalid_dn("newrdn is one level of a name"));
    };
    Ok(Change::Rename {
        dn: name(&request.dn)?,
        rdn,
        delete_old: request.deleteoldrdn,
        superior: request.new_superior.as_deref().map(name).transpose()?,
    })
}

fn search(request: LdapSearchRequest, controls: Vec<LdapControl>, assertions_max: usize) -> Result<Search, Refusal> {
    if filter::assertions(&request.filter) > assertions_max {
        return Err(Refusal::new(Code::AdminLimitExceeded, "the filter is too large"));
    }
    let mut page = None;
    for control in controls {
        if let LdapControl::SimplePagedResults { size, cookie } = control {
            let unusable = || Refusal::new(Code::ProtocolError, "unusable paged results control");
            let cursor = Cursor::from_cookie(&cookie).ok_or_else(unusable)?;
            let size = usize::try_from(size).map_err(|_| unusable())?.min(PAGE_SIZE_MAX);
            page = Some(Page { size, cursor });
        }
    }
    // RFC 4511 sections 4.5.1.4 and 4.5.1.5: 0 is no limit.
    let limit = |number: i32| usize::try_from(number).ok().filter(|&number| number > 0);
    Ok(Search {
        base: name(&request.base)?,
        scope: request.scope,
        selection: Selection::new(&request.attrs, request.typesonly),
        filter: request.filter,
        entries_max: limit(request.sizelimit),
        time_max: u64::try_from(request.timelimit).ok().filter(|&secs| secs > 0).map(Duration::from_secs),
        page,
    })
}

fn success() -> LdapResult {
    LdapResult { code: Code::Success, matcheddn: String::new(), message: String::new(), referral: Vec::new() }
}

pub(super) fn result(outcome: Result<(), Refusal>) -> LdapResult {
    match outcome {
        Ok(()) => success(),
        Err(Refusal { code, matched, text }) => {
            LdapResult { code, matcheddn: matched, message: text, referral: Vec::new() }
        }
    }
}

/// The response to a request of this kind (RFC 4511 section 4.1.9).
pub(super) fn answer(id: i32, kind: Kind, outcome: Result<(), Refusal>) -> LdapMsg {
    let result = result(outcome);
    let op = match kind {
        Kind::Bind => LdapOp::BindResponse(LdapBindResponse { res: result, saslcreds: None }),
        Kind::Search => LdapOp::SearchResultDone(result),
        Kind::Modify => LdapOp::ModifyResponse(result),
        Kind::Add => LdapOp::AddResponse(result),
        Kind::Delete => LdapOp::DelResponse(result),
        Kind::ModifyDn => LdapOp::ModifyDNResponse(result),
        Kind::Compare => LdapOp::CompareResult(result),
        // Unbind and Abandon have no response and never come here.
        Kind::Extended | Kind::Unbind | Kind::Abandon => return extended_response(id, result, None, None),
    };
    LdapMsg::new(id, op)
}

/// The answer to a password modify; with the password when the server made it (RFC 3062 section 2).
pub(super) fn password_answer(id: i32, outcome: Result<Option<SecretText>, Refusal>) -> LdapMsg {
    match outcome {
        Ok(Some(made)) => {
            let response = LdapPasswordModifyResponse { res: success(), gen_password: Some(made.reveal().to_owned()) };
            LdapMsg::new(id, LdapOp::ExtendedResponse(response.into()))
        }
        Ok(None) => answer(id, Kind::Extended, Ok(())),
        Err(refusal) => answer(id, Kind::Extended, Err(refusal)),
    }
}

fn extended_response(id: i32, res: LdapResult, name: Option<String>, value: Option<Vec<u8>>) -> LdapMsg {
    LdapMsg::new(id, LdapOp::ExtendedResponse(LdapExtendedResponse { res, name, value }))
}

/// Notice of disconnection (RFC 4511 section 4.4.1).
pub(super) fn notice(code: Code, text: &str) -> LdapMsg {
    let name = Some(publish::NOTICE_OF_DISCONNECTION.to_owned());
    extended_response(0, result(Err(Refusal::new(code, text))), name, None)
}

/// Puts a message behind what is to be sent.
pub(super) fn encode(message: LdapMsg, out: &mut BytesMut) {
    let mut codec = LdapCodec::default();
    // Writing into memory does not fail.
    drop(tracing::subscriber::with_default(NoSubscriber::new(), || codec.encode(message, out)));
}
