//! One row per command: name, check, act.
//!
//! Owns: the order of commands, and what each of them does. Called by: `smtp::session`, for lines that parsed.
//! Spec: RFC 5321 section 4.1.4 (order of commands), and the RFC of each extension.

use super::body::{Body, Chunk};
use super::{Ask, Greeting, Now, Personality, Phase, Session};
use crate::smtp::command::{Command, ForwardPath, Mail, Mechanism, Rcpt, Refusal};
use crate::smtp::reply::{self, Reply};
use crate::smtp::{extension, sasl};

/// What a command needs to have happened before.
#[derive(Debug, Clone, Copy)]
enum Need {
    /// EHLO or HELO.
    Greeting,
    /// AUTH, where users send.
    SignIn,
    /// MAIL.
    Message,
    /// No MAIL.
    NoMessage,
    /// No BDAT in this message (RFC 3030 section 2: the two ways to send it are not mixed, and recipients come first).
    NoChunks,
}

impl Session {
    /// Decides on a line.
    pub(super) fn command(
        &mut self,
        parsed: Result<Command, Refusal>,
        nothing_follows: bool,
        now: &Now,
    ) -> Option<Ask> {
        let decided = match parsed {
            Ok(command) if self.is_only_chat(&command) => {
                self.close(&reply::TOO_MANY_IDLE_COMMANDS);
                return None;
            }
            Ok(command) => self.decide(command, nothing_follows, now),
            Err(refusal) if refusal.closes => {
                self.close(&refusal.reply);
                return None;
            }
            Err(refusal) => Err(refusal.reply),
        };
        decided.unwrap_or_else(|reply| {
            self.say(&reply);
            None
        })
    }

    /// The table. Commands that end in `Ok(None)` have given their reply.
    fn decide(&mut self, command: Command, nothing_follows: bool, now: &Now) -> Result<Option<Ask>, Reply> {
        use Need::{Greeting, Message, NoChunks, NoMessage, SignIn};
        // Name => check, act.
        match command {
            Command::Helo { name } => self.needs(&[])?.helo(name),
            Command::Ehlo { name } => self.needs(&[])?.ehlo(name),
            Command::StartTls => self.needs(&[Greeting, NoMessage])?.start_tls(nothing_follows),
            Command::Auth { mechanism, initial } => {
                self.needs(&[Greeting, NoMessage])?.auth(mechanism, initial.as_deref())
            }
            Command::Mail(mail) => self.needs(&[Greeting, SignIn, NoMessage])?.mail(mail),
            Command::Rcpt(rcpt) => self.needs(&[Greeting, SignIn, Message, NoChunks])?.rcpt(rcpt),
            Command::Data => self.needs(&[Greeting, SignIn, Message, NoChunks])?.data(now),
            // A chunk follows its command at once, and has to be read even when the command is refused.
            Command::Bdat { octets, last } => {
                let refused = self.needs(&[Greeting, SignIn, Message]).err();
                self.bdat(octets, last, refused, now)
            }
            Command::Rset => self.needs(&[])?.rset(),
            Command::Noop => self.needs(&[])?.answer(&reply::OK),
            Command::Vrfy => self.needs(&[SignIn])?.answer(&reply::VRFY),
            Command::Help => self.needs(&[])?.answer(&reply::HELP),
            Command::Quit => self.needs(&[])?.quit(),
        }
    }

    fn needs(&mut self, needs: &[Need]) -> Result<&mut Self, Reply> {
        let unmet = needs.iter().find_map(|need| self.unmet(*need));
        unmet.map_or(Ok(self), Err)
    }

    fn unmet(&self, need: Need) -> Option<Reply> {
        let chunks = self.transaction.as_ref().is_some_and(|transaction| transaction.chunks.is_some());
        let (met, reply) = match need {
            Need::Greeting => (self.greeting.is_some(), reply::GREET_FIRST),
            Need::SignIn => (self.personality == Personality::Mx || self.account.is_some(), reply::AUTH_FIRST),
            Need::Message => (self.transaction.is_some(), reply::MAIL_FIRST),
            Need::NoMessage => (self.transaction.is_none(), reply::NESTED_MAIL),
            Need::NoChunks => (!chunks, reply::CHUNKS_IN_HAND),
        };
        (!met).then_some(reply)
    }

    /// Counts commands; who only chats is sent away some time. Recipients and chunks belong to a message.
    fn is_only_chat(&mut self, command: &Command) -> bool {
        if !matches!(command, Command::Rcpt(_) | Command::Bdat { .. } | Command::Quit) {
            self.idle_commands += 1;
        }
        self.idle_commands > super::IDLE_COMMANDS_MAX
    }

    fn answer(&mut self, reply: &Reply) -> Result<Option<Ask>, Reply> {
        self.say(reply);
        Ok(None)
    }

    fn ask(&mut self, ask: Ask) -> Result<Option<Ask>, Reply> {
        self.phase = Phase::Asked;
        Ok(Some(ask))
    }

    fn helo(&mut self, name: String) -> Result<Option<Ask>, Reply> {
        self.greet(name, false);
        let text = format!("250 {}\r\n", self.settings.hostname);
        self.output.extend_from_slice(text.as_bytes());
        Ok(None)
    }

    fn ehlo(&mut self, name: String) -> Result<Option<Ask>, Reply> {
        self.greet(name, true);
        let offer = extension::Offer {
            hostname: &self.settings.hostname,
            message_size_max: self.settings.message_size_max,
            start_tls: self.offers_tls(),
            auth: self.offers_auth(),
        };
        offer.write(&mut self.output);
        Ok(None)
    }

    /// EHLO and HELO end a message in hand (RFC 5321 section 4.1.4).
    fn greet(&mut self, name: String, extended: bool) {
        self.transaction = None;
        self.greeting = Some(Greeting { name, extended });
    }

    fn offers_tls(&self) -> bool {
        self.settings.tls_available && self.client.tls.is_none()
    }

    /// Passwords go over TLS, or do not leave the machine, or the administrator wants them in the clear.
    fn offers_auth(&self) -> bool {
        let safe = self.client.tls.is_some() || self.client.is_local || self.settings.cleartext_login;
        self.personality == Personality::Submission && safe
    }

    fn start_tls(&mut self, nothing_follows: bool) -> Result<Option<Ask>, Reply> {
        if self.client.tls.is_some() {
            return Err(reply::TLS_ALREADY);
        }
        if !self.settings.tls_available {
            return Err(reply::NO_TLS_HERE);
        }
        if !nothing_follows {
            // RFC 3207 section 4: the client waits for the reply. What came in the clear behind STARTTLS may be another's, put in to
            // be read as if TLS had protected it.
            self.close(&reply::TLS_INJECTION);
            return Ok(None);
        }
        self.say(&reply::TLS_READY);
        self.ask(Ask::StartTls)
    }

    fn auth(&mut self, mechanism: Mechanism, initial: Option<&str>) -> Result<Option<Ask>, Reply> {
        if self.personality == Personality::Mx {
            return Err(reply::NO_AUTH_HERE);
        }
        if self.account.is_some() {
            return Err(reply::AUTH_ALREADY);
        }
        if !self.offers_auth() {
            return Err(reply::AUTH_NEEDS_TLS);
        }
        let step = sasl::begin(mechanism, initial);
        Ok(self.sign_in_step(step))
    }

    fn mail(&mut self, mail: Mail) -> Result<Option<Ask>, Reply> {
        if mail.size > self.settings.message_size_max {
            // RFC 1870 section 6.1.
            return Err(reply::TOO_BIG);
        }
        if mail.auth && !self.offers_auth() {
            return Err(reply::UNSUPPORTED_PARAMETER);
        }
        let sender = mail.reverse_path.clone();
        self.pending_mail = Some(mail);
        self.ask(Ask::Sender(sender))
    }

    fn rcpt(&mut self, rcpt: Rcpt) -> Result<Option<Ask>, Reply> {
        let Some(transaction) = &mut self.transaction else { return Err(reply::MAIL_FIRST) };
        if transaction.accepted >= self.settings.recipients_max {
            // RFC 5321 section 4.5.3.1.10: the sender comes back with the rest.
            return Err(reply::TOO_MANY_RECIPIENTS);
        }
        if let ForwardPath::Mailbox(address) = &rcpt.path
            && !address.is_ascii()
            && !transaction.smtputf8
        {
            return Err(reply::RECIPIENT_NEEDS_SMTPUTF8);
        }
        transaction.pending_rcpt = (rcpt.notify, rcpt.original.map(Into::into));
        self.ask(Ask::Recipient(rcpt.path))
    }

    fn data(&mut self, now: &Now) -> Result<Option<Ask>, Reply> {
        if self.transaction.as_ref().is_none_or(|transaction| transaction.recipients.is_empty()) {
            return Err(reply::NO_RECIPIENTS);
        }
        self.phase = Phase::Data(Body::by_data(self.settings.message_size_max, now.monotonic));
        self.answer(&reply::SEND_MESSAGE)
    }

    fn bdat(&mut self, octets: usize, last: bool, refused: Option<Reply>, now: &Now) -> Result<Option<Ask>, Reply> {
        let size_max = self.settings.message_size_max;
        let refused = refused.or_else(|| match &mut self.transaction {
            Some(transaction) if transaction.recipients.is_empty() => Some(reply::NO_RECIPIENTS),
            Some(transaction) => {
                transaction.chunks.get_or_insert_with(|| Body::by_chunks(size_max, now.monotonic));
                None
            }
            None => Some(reply::MAIL_FIRST),
        });
        self.phase = Phase::Chunk(Chunk { left: octets, octets, last, refused });
        // An empty chunk is complete already, and nothing may come to complete it.
        let (_, ask) = if octets == 0 { self.receive_body(&[], now) } else { (0, None) };
        Ok(ask)
    }

    fn rset(&mut self) -> Result<Option<Ask>, Reply> {
        self.transaction = None;
        self.answer(&reply::OK)
    }

    fn quit(&mut self) -> Result<Option<Ask>, Reply> {
        self.transaction = None;
        self.close(&reply::GOODBYE);
        Ok(None)
    }
}
