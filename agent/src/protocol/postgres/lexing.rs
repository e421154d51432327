//! Whether the server reads text by the rules that `sql` reads it by.

use std::sync::Arc;

use super::{rows::Mentions, sql::Reading};
use crate::flow::{Effect, Statement};

/// How the server reads text, as far as ours depends on it.
#[derive(Default)]
pub(super) struct Lexing {
    plain_backslashes_off: bool,
    unsafe_encoding: bool,
}

impl Lexing {
    /// Follows the server's reports.
    pub(super) fn reported(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"standard_conforming_strings" => self.plain_backslashes_off = value != b"on",
            b"client_encoding" => self.unsafe_encoding = UNSAFE_ENCODINGS.contains(&value),
            _ => {}
        }
    }

    /// Why text cannot be read at the moment, if it cannot.
    pub(super) fn objection(&self) -> Option<&'static str> {
        if self.plain_backslashes_off {
            return Some("standard_conforming_strings is off");
        }
        self.unsafe_encoding.then_some("client_encoding has characters that hold ASCII bytes")
    }
}

impl Reading {
    /// What is left of a reading when the server reads the text by other rules than ours.
    pub(super) fn made_unreadable(self, why: &str) -> Self {
        let mut statement = Statement::clone(&self.statement);
        statement.effects.insert(Effect::Unreadable);
        statement.readable = false;
        statement.unreadable_reason = Some(why.to_owned());
        Self { statement: Arc::new(statement), mentions: Arc::new(Mentions::unknown()), verbs: self.verbs }
    }
}

/// Client encodings in which a byte below 128 may be part of another character, so that a quote is not what it seems.
const UNSAFE_ENCODINGS: &[&[u8]] = &[b"BIG5", b"GB18030", b"GBK", b"JOHAB", b"SHIFT_JIS_2004", b"SJIS", b"UHC"];
