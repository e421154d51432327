//! Reads SQL. (Placeholder: everything is unreadable until the reader is merged.)

use std::sync::Arc;

use bytes::Bytes;

use super::rows::Mentions;
use crate::flow::{Effect, Effects, Statement};

pub struct Reading {
    pub statement: Arc<Statement>,
    pub mentions: Arc<Mentions>,
    pub verbs: Vec<Verb>,
}

pub struct Verb {
    pub tag: &'static str,
    pub copy_out: bool,
    pub copy_in: bool,
    pub transaction: Option<TransactionVerb>,
}

pub enum TransactionVerb {}

#[must_use]
pub fn read(text: &[u8]) -> Reading {
    let sensitive = String::from_utf8_lossy(text).contains("users");
    Reading {
        statement: Arc::new(Statement {
            text: Bytes::copy_from_slice(text),
            effects: Effects::of(&[Effect::Unreadable]),
            objects: Vec::new(),
            has_where: true,
            where_tautology: false,
            readable: false,
            unreadable_reason: Some("no reader".to_owned()),
            count: 1,
        }),
        mentions: Arc::new(Mentions { sensitive }),
        verbs: vec![Verb {
            tag: "",
            copy_out: text.to_ascii_lowercase().starts_with(b"copy") && text.to_ascii_lowercase().ends_with(b"stdout"),
            copy_in: false,
            transaction: None,
        }],
    }
}
