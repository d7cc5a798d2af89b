//! Changes as they stand in the ledger, entries as they stand in the view.
//!
//! Owns: the JSON form of an entry, the kinds of records. Called by: `writer`, `view`.
//! Never: changes the meaning of a kind or a field: ledgers are kept for years.
//!
//! A record holds an entry's whole state after the change. So a record applied twice does no harm, and of
//! all records of an entry only the last counts.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::dn::Dn;
use super::entry::Entry;

/// Kind of a record that holds an entry.
pub(super) const PUT: u8 = 1;
/// Kind of a record that takes an entry away.
pub(super) const DELETE: u8 = 2;

/// A record cannot be read: damage, or of a newer fife.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("record of unknown kind {0}")]
    Kind(u8),
    #[error("record is not what it should be: {0}")]
    Json(#[from] serde_json::Error),
    #[error("record holds a name that is none")]
    Name,
    #[error("record holds octets that are not base64")]
    Octets,
}

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Put(Entry),
    /// By entryUUID.
    Delete(String),
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    dn: String,
    #[serde(borrow)]
    attributes: BTreeMap<std::borrow::Cow<'a, str>, Vec<Value>>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Octets { base64: String },
}

#[derive(Serialize, Deserialize)]
struct Deleted {
    uuid: String,
}

impl Record {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Put(_) => PUT,
            Self::Delete(_) => DELETE,
        }
    }

    pub(super) fn payload(&self) -> Result<Vec<u8>, RecordError> {
        Ok(match self {
            Self::Put(entry) => to_json(entry)?.into_bytes(),
            Self::Delete(uuid) => serde_json::to_vec(&Deleted { uuid: uuid.clone() })?,
        })
    }

    pub(super) fn parse(kind: u8, payload: &[u8]) -> Result<Self, RecordError> {
        match kind {
            PUT => Ok(Self::Put(from_json(payload)?)),
            DELETE => Ok(Self::Delete(serde_json::from_slice::<Deleted>(payload)?.uuid)),
            other => Err(RecordError::Kind(other)),
        }
    }
}

/// `{"dn":"uid=u1,…","attributes":{"cn":["…"],"jpegPhoto":[{"base64":"…"}]}}`.
pub(super) fn to_json(entry: &Entry) -> Result<String, RecordError> {
    let value = |octets: &Vec<u8>| match std::str::from_utf8(octets) {
        Ok(text) => Value::Text(text.to_owned()),
        Err(_) => Value::Octets { base64: STANDARD.encode(octets) },
    };
    let attributes = entry.attributes.iter().map(|(name, values)| (name.into(), values.iter().map(value).collect()));
    Ok(serde_json::to_string(&Stored { dn: entry.dn.to_string(), attributes: attributes.collect() })?)
}

pub(super) fn from_json(json: &[u8]) -> Result<Entry, RecordError> {
    let stored: Stored<'_> = serde_json::from_slice(json)?;
    let mut entry = Entry::new(Dn::parse(&stored.dn).map_err(|_| RecordError::Name)?);
    for (name, values) in stored.attributes {
        let octets = |value| match value {
            Value::Text(text) => Ok(text.into_bytes()),
            Value::Octets { base64 } => STANDARD.decode(base64).map_err(|_| RecordError::Octets),
        };
        let values = values.into_iter().map(octets).collect::<Result<_, _>>()?;
        entry.attributes.insert(name.into_owned(), values);
    }
    Ok(entry)
}
