//! The message being received, by DATA or by BDAT.
//!
//! Owns: its octets, what is wrong with it, how long it may take. Called by: `smtp::session`.
//! Spec: RFC 5321 sections 4.1.1.4 (DATA), 4.5.2 (transparency), 4.5.3.1.7 (size), 6.3 (loops); RFC 3030 (BDAT); RFC 6409 section 8.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Ask, Now, Personality, Phase, Session, Transaction};
use crate::message::dot::{DotReader, Progress};
use crate::net::OCTETS_PER_SEC_MIN;
use crate::smtp::envelope::{Envelope, Message};
use crate::smtp::header;
use crate::smtp::reply::{self, Reply};
use crate::smtp::trace::{self, Received};

/// A message that is refused is read to its end, so that the reply is heard; but no further than this many times the largest size.
const REFUSED_SIZE_FACTOR: usize = 4;

/// Message text so far.
#[derive(Debug)]
pub(super) struct Body {
    reader: DotReader,
    text: Vec<u8>,
    size_max: usize,
    /// Decided already, whatever else comes.
    refused: Option<Reply>,
    began_at: Instant,
}

/// A chunk so far.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) left: usize,
    pub(super) octets: usize,
    pub(super) last: bool,
    /// The command was refused; the chunk is read and thrown away.
    pub(super) refused: Option<Reply>,
}

impl Body {
    pub(super) fn by_data(size_max: usize, now: Instant) -> Self {
        Self { reader: DotReader::new(size_max), text: Vec::new(), size_max, refused: None, began_at: now }
    }

    pub(super) fn by_chunks(size_max: usize, now: Instant) -> Self {
        Self { reader: DotReader::unstuffed(size_max), ..Self::by_data(size_max, now) }
    }

    pub(super) fn buffered(&self) -> usize {
        self.text.capacity()
    }

    /// Throws away what is held and what comes.
    pub(super) fn refuse(&mut self, reply: Reply) {
        self.refused.get_or_insert(reply);
        self.text = Vec::new();
    }

    /// By when the whole of it has to be there, as far as it has come.
    pub(super) fn deadline(&self, patience: Duration) -> Instant {
        let earned = u64::try_from(self.reader.size() / OCTETS_PER_SEC_MIN).unwrap_or(u64::MAX);
        self.began_at + patience + Duration::from_secs(earned)
    }

    fn receive(&mut self, input: &[u8]) -> Progress {
        let progress = self.reader.receive(input, &mut self.text);
        if self.reader.findings().too_big {
            self.refuse(reply::TOO_BIG);
        } else if self.refused.is_some() {
            self.text = Vec::new();
        }
        progress
    }

    /// Too much even to throw away.
    fn is_endless(&self) -> bool {
        self.reader.size() / REFUSED_SIZE_FACTOR > self.size_max
    }

    /// The text, or what is wrong with it.
    fn finish(mut self) -> Result<Vec<u8>, Reply> {
        let findings = self.reader.findings();
        if let Some(reply) = self.refused {
            return Err(reply);
        }
        // RFC 5321 section 2.3.8: what other servers could read as other lines than we did is not passed on.
        if findings.bare_cr || findings.bare_lf {
            return Err(reply::BARE_LINE_END);
        }
        if findings.nul {
            return Err(reply::NUL_IN_MESSAGE);
        }
        // By BDAT a message can end within a line; everywhere else it cannot.
        if !self.text.ends_with(b"\r\n") {
            self.text.extend_from_slice(b"\r\n");
        }
        Ok(self.text)
    }
}

impl Session {
    /// Octets of a message, in `Phase::Data` or `Phase::Chunk`.
    pub(super) fn receive_body(&mut self, input: &[u8], now: &Now) -> (usize, Option<Ask>) {
        self.progress_at = now.monotonic;
        match std::mem::replace(&mut self.phase, Phase::Commands) {
            Phase::Data(mut body) => match body.receive(input) {
                Progress::Done { used } => (used, self.complete(body, now)),
                Progress::More if body.is_endless() => {
                    self.close(&reply::TOO_BIG);
                    (input.len(), None)
                }
                Progress::More => {
                    self.phase = Phase::Data(body);
                    (input.len(), None)
                }
            },
            Phase::Chunk(chunk) => self.receive_chunk(chunk, input, now),
            phase @ (Phase::Commands | Phase::SignIn(_) | Phase::Asked | Phase::Closing) => {
                self.phase = phase;
                (0, None)
            }
        }
    }

    fn receive_chunk(&mut self, mut chunk: Chunk, input: &[u8], now: &Now) -> (usize, Option<Ask>) {
        let used = input.len().min(chunk.left);
        let octets = input.get(..used).unwrap_or_default();
        let body = self.transaction.as_mut().and_then(|transaction| transaction.chunks.as_mut());
        chunk.left -= used;
        let endless = match body {
            Some(body) if chunk.refused.is_none() => {
                // `Done` cannot come: an unstuffed reader knows no end.
                let (Progress::More | Progress::Done { .. }) = body.receive(octets);
                body.is_endless()
            }
            Some(_) | None => (chunk.octets - chunk.left) / REFUSED_SIZE_FACTOR > self.settings.message_size_max,
        };
        if endless {
            self.close(&reply::TOO_BIG);
            return (used, None);
        }
        if chunk.left > 0 {
            self.phase = Phase::Chunk(chunk);
            return (used, None);
        }
        (used, self.complete_chunk(&chunk, now))
    }

    fn complete_chunk(&mut self, chunk: &Chunk, now: &Now) -> Option<Ask> {
        let refused = chunk.refused.clone().or_else(|| self.body_in_hand().and_then(|body| body.refused.clone()));
        if let Some(reply) = refused {
            // RFC 3030 section 2: the message has failed with this chunk; further chunks find none in hand.
            self.transaction = None;
            self.say(&reply);
            return None;
        }
        if !chunk.last {
            let text = format!("{} octets received", chunk.octets);
            self.say(&reply::OK.with_text(text));
            return None;
        }
        let body = self.transaction.as_mut().and_then(|transaction| transaction.chunks.take())?;
        self.complete(body, now)
    }

    /// The message is whole: refuse it for what is in it, or hand it over.
    fn complete(&mut self, body: Body, now: &Now) -> Option<Ask> {
        let transaction = self.transaction.take()?;
        match body.finish().and_then(|text| self.message(transaction, text, now)) {
            Ok(message) => {
                self.phase = Phase::Asked;
                Some(Ask::Deliver(Box::new(message)))
            }
            Err(reply) => {
                self.say(&reply);
                None
            }
        }
    }

    fn message(&self, transaction: Transaction, text: Vec<u8>, now: &Now) -> Result<Message, Reply> {
        let header = header::scan(&text);
        if header.hops > self.settings.hops_max {
            return Err(reply::LOOP);
        }
        let recipient = match transaction.recipients.as_slice() {
            [only] => Some(&*only.given),
            _ => None,
        };
        let received = Received {
            client_name: self.greeting.as_ref().map_or("", |greeting| &greeting.name),
            client_address: self.client.address,
            server_name: &self.settings.hostname,
            extended: self.greeting.as_ref().is_some_and(|greeting| greeting.extended),
            tls: self.client.tls.as_deref(),
            signed_in: self.account.is_some(),
            smtputf8: transaction.smtputf8,
            session: self.id,
            message: transaction.id,
            recipient,
            unix_secs: now.unix_secs,
        };
        let mut trace = received.field();
        if self.personality == Personality::Submission {
            // RFC 6409 sections 8.2 and 8.3: what a user's program left out is added.
            if !header.has_date {
                trace.push_str(&trace::date_field(now.unix_secs));
            }
            if !header.has_message_id {
                trace.push_str(&trace::message_id_field(transaction.id, &self.settings.hostname));
            }
        }
        let envelope = Envelope {
            id: transaction.id,
            reverse_path: transaction.reverse_path,
            recipients: transaction.recipients,
            smtputf8: transaction.smtputf8,
            reports: transaction.reports,
        };
        Ok(Message { envelope, trace: Bytes::from(trace), content: Bytes::from(text) })
    }
}
