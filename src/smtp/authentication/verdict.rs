//! What follows from what was found out about a message.
//!
//! Owns: `Verdict`, `Disposition`. Called by: `verify` (makes it), `authentication` (obeys). Never: asks anybody.
//! Spec: RFC 9989 section 5.4 (policy), RFC 7489 section 10.3 and RFC 7372 (what the client is told).

use mail_auth::dmarc::Policy;
use mail_auth::{DkimOutput, DkimResult, DmarcOutput, DmarcResult, SpfResult};

use super::verify::Spf;
use crate::config::smtp_authentication::{DmarcMode, DnsFailure, SmtpAuthentication};
use crate::smtp::reply::{self, Reply};

/// A result as RFC 8601 section 2.7 names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    None,
    Pass,
    Fail,
    SoftFail,
    Neutral,
    TempError,
    PermError,
}

impl Outcome {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// What was found out about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Our name and all results, for Authentication-Results.
    pub results: String,
    /// Of the reverse-path; of HELO when it is null.
    pub spf: Outcome,
    /// The best of all signatures.
    pub dkim: Outcome,
    /// The worst of all authors' domains.
    pub dmarc: Outcome,
    /// What the author's domain asks for when DMARC fails.
    pub policy: Policy,
    /// The domain that this is about; empty when From names none.
    pub author: String,
    /// More authors' domains than are asked about.
    pub too_many_authors: bool,
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    Take,
    Refuse(Reply),
}

impl Disposition {
    /// The word for it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Take => "taken",
            Self::Refuse(reply) if reply.is_permanent() => "refused",
            Self::Refuse(_) => "deferred",
        }
    }
}

impl Default for Verdict {
    /// Nothing was found out.
    fn default() -> Self {
        Self::new(String::new(), &Spf::default(), Some(&[]), &[], false)
    }
}

impl Verdict {
    /// From what the questions gave; no `dkim`: there was no time for it.
    pub(super) fn new(
        results: String,
        spf: &Spf,
        dkim: Option<&[DkimOutput<'_>]>,
        dmarc: &[DmarcOutput],
        too_many_authors: bool,
    ) -> Self {
        let spf = spf.mail_from.as_ref().or(spf.helo.as_ref()).map_or(Outcome::None, |output| of_spf(output.result()));
        let worst = dmarc.iter().max_by_key(|output| severity(output));
        Self {
            results,
            spf,
            dkim: dkim.map_or(Outcome::TempError, of_dkim),
            dmarc: worst.map_or(Outcome::None, |output| of_dmarc(&output.result())),
            policy: worst.map_or(Policy::None, DmarcOutput::policy),
            author: worst.map(|output| output.domain().to_owned()).unwrap_or_default(),
            too_many_authors,
        }
    }

    /// What is to be done. `quarantine` asks for suspicion, not for refusal: the results say so, and whoever files the mail can read it there.
    #[must_use]
    pub fn disposition(&self, settings: &SmtpAuthentication) -> Disposition {
        if settings.dmarc != DmarcMode::Obey {
            return Disposition::Take;
        }
        if self.too_many_authors {
            return Disposition::Refuse(reply::TOO_MANY_AUTHORS);
        }
        match (self.dmarc, self.policy) {
            (Outcome::Fail, Policy::Reject) => {
                let text = format!("refused as the DMARC policy of {} asks", self.author);
                Disposition::Refuse(reply::DMARC_REFUSED.with_text(text))
            }
            (Outcome::TempError, _) if settings.dns_failure == DnsFailure::Defer => {
                Disposition::Refuse(reply::POLICY_UNKNOWN)
            }
            (_, Policy::None | Policy::Quarantine | Policy::Reject | Policy::Unspecified) => Disposition::Take,
        }
    }

    /// Methods and results, to be counted.
    pub(super) fn counted(&self) -> [(&'static str, &'static str); 3] {
        [("spf", self.spf.as_str()), ("dkim", self.dkim.as_str()), ("dmarc", self.dmarc.as_str())]
    }
}

fn of_spf(result: SpfResult) -> Outcome {
    match result {
        SpfResult::Pass => Outcome::Pass,
        SpfResult::Fail => Outcome::Fail,
        SpfResult::SoftFail => Outcome::SoftFail,
        SpfResult::Neutral => Outcome::Neutral,
        SpfResult::TempError => Outcome::TempError,
        SpfResult::PermError => Outcome::PermError,
        SpfResult::None => Outcome::None,
    }
}

fn of_dkim(outputs: &[DkimOutput<'_>]) -> Outcome {
    let outcome = |output: &DkimOutput<'_>| match output.result() {
        DkimResult::Pass => Outcome::Pass,
        DkimResult::Neutral(_) => Outcome::Neutral,
        DkimResult::Fail(_) => Outcome::Fail,
        DkimResult::PermError(_) => Outcome::PermError,
        DkimResult::TempError(_) => Outcome::TempError,
        DkimResult::None => Outcome::None,
    };
    let outcomes: Vec<Outcome> = outputs.iter().map(outcome).collect();
    let any = |wanted| outcomes.contains(&wanted).then_some(wanted);
    any(Outcome::Pass).or(any(Outcome::TempError)).or(outcomes.first().copied()).unwrap_or(Outcome::None)
}

fn of_dmarc(result: &DmarcResult) -> Outcome {
    match result {
        DmarcResult::Pass => Outcome::Pass,
        DmarcResult::Fail(_) => Outcome::Fail,
        DmarcResult::TempError(_) => Outcome::TempError,
        DmarcResult::PermError(_) => Outcome::PermError,
        DmarcResult::None => Outcome::None,
    }
}

/// Of several authors' domains the one counts that is worst off (RFC 9989 section 11.5).
fn severity(output: &DmarcOutput) -> u8 {
    match (of_dmarc(&output.result()), output.policy()) {
        (Outcome::Fail, Policy::Reject) => 5,
        (Outcome::TempError, _) => 4,
        (Outcome::Fail, Policy::Quarantine) => 3,
        (Outcome::Fail, Policy::None | Policy::Unspecified) => 2,
        (Outcome::PermError | Outcome::Neutral | Outcome::SoftFail, _) => 1,
        (Outcome::None | Outcome::Pass, _) => 0,
    }
}
