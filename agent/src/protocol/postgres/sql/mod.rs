//! Reads SQL text into effects and objects, with PostgreSQL's own grammar.
//!
//! The text goes through libpg_query, and the tree through a closed walk: what the walk does not know makes the statement unreadable,
//! which is an effect that policies deny by default. The text's size and nesting are measured before it is parsed ([`measure`]),
//! because the parser and its decoder recurse.
//!
//! The grammar is that of PostgreSQL 17 with `standard_conforming_strings = on` and UTF-8; statements that change how later text is
//! read say so (`session-lex`).

mod by_name;
mod cache;
mod children;
mod functions;
mod measure;
mod nodes;
mod reads;
mod redact;
mod settings;
mod statements;
mod tautology;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use pg_query::protobuf::RawStmt;

use super::rows::Mentions;
use crate::flow::{Effect, Effects, Statement};
pub use by_name::{ByName, How};

/// One Query or Parse message, read.
#[derive(Clone, Debug)]
pub struct Reading {
    pub statement: Arc<Statement>,
    /// What the message refers to: the ground for masking its results.
    pub mentions: Arc<Mentions>,
    /// One per statement of the message, in order; empty for an empty query and for unreadable text.
    pub verbs: Vec<Verb>,
    pub by_name: Option<Arc<ByName>>,
    /// For EXECUTE: the reading of everything but the statement that it names.
    pub around: Option<Arc<Reading>>,
    /// A setting that is given a value under which later text could not be read.
    pub unsafe_setting: Option<&'static str>,
    /// What the parser says of text that is no SQL. It may quote literals: for the client alone.
    pub syntax_error: Option<Arc<str>>,
}

/// What one statement of a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verb {
    /// `SELECT`, `COPY`, `CREATE TABLE`: close to the command tag that the server answers with.
    pub tag: &'static str,
    /// COPY ... TO STDOUT.
    pub copy_out: bool,
    /// COPY ... FROM STDIN.
    pub copy_in: bool,
    pub transaction: Option<TransactionVerb>,
}

/// What a transaction statement does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TransactionVerb {
    Begin,
    Commit,
    CommitPrepared,
    Prepare,
    Release,
    Rollback,
    RollbackPrepared,
    RollbackTo,
    Savepoint,
}

/// Reads the text of a Query or Parse message (without its terminating zero byte).
///
/// Never fails: text that cannot be read is a [`Reading`] with the effect `unreadable`. Repeated texts come from a cache.
#[must_use]
pub fn read(text: &[u8]) -> Reading {
    if let Some(reading) = cache::lookup(text) {
        return reading;
    }
    let reading = read_afresh(text);
    cache::store(text, &reading);
    reading
}

/// As [`read`], past the cache: for texts that are read once.
#[must_use]
pub(in crate::protocol::postgres) fn read_afresh(text: &[u8]) -> Reading {
    read_as(text, false)
}

/// The body of a function, which stands in another statement.
fn read_body(text: &[u8]) -> Reading {
    read_as(text, true)
}

fn read_as(text: &[u8], is_body: bool) -> Reading {
    let text = Bytes::copy_from_slice(text);
    let Ok(sql) = str::from_utf8(&text) else {
        return unreadable(&text, "the text is not UTF-8");
    };
    if sql.contains('\0') {
        return unreadable(&text, "the text holds a zero byte");
    }
    if sql.starts_with('\u{feff}') {
        return unreadable(&text, "the text begins with a byte order mark");
    }
    match measure::within_limits(sql, || parse(&text, sql, is_body)) {
        Ok(reading) => reading,
        Err(measure::Unfit::Empty) => empty(text),
        Err(measure::Unfit::Unreadable(why)) => unreadable(&text, &why),
    }
}

fn parse(text: &Bytes, sql: &str, is_body: bool) -> Reading {
    let tree = match pg_query::parse(sql) {
        Ok(tree) => tree.protobuf,
        // The parser quotes the text near an error, which may hold literals.
        Err(error) => {
            let syntax_error = match error {
                pg_query::Error::Parse(message) => Some(message.into()),
                _ => None,
            };
            return Reading { syntax_error, ..unreadable(text, "the text is not valid SQL for PostgreSQL 17") };
        }
    };
    if tree.stmts.is_empty() {
        // A short text was not measured, so comments and semicolons alone are still found here.
        return match measure::is_empty(sql) {
            true => empty(text.clone()),
            false => unreadable(text, "the text holds no statement"),
        };
    }
    let by_name = ByName::of(&tree.stmts).map(Arc::new);
    let walk = |walk| walked(walk, &tree.stmts, text, sql);
    let around = matches!(by_name.as_deref(), Some(ByName::Execute { .. })).then(|| walk(walk::Walk::around_execute()));
    Reading { by_name, around: around.map(Arc::new), ..walk(walk::Walk::new(is_body)) }
}

fn walked<'a>(mut walk: walk::Walk<'a>, statements: &'a [RawStmt], text: &Bytes, sql: &str) -> Reading {
    let verbs = statements.iter().map(|raw| walk.statement(raw)).collect();
    let walk::Findings { effects, objects, has_where, where_tautology, unreadable_reason, unsafe_setting, mentions, secrets } =
        walk.finish();
    let shown = match unreadable_reason {
        Some(_) => redact::hide_after_password(text),
        None => redact::hide(text, sql, &secrets),
    };
    Reading {
        statement: Arc::new(Statement {
            text: shown,
            effects,
            objects,
            has_where,
            where_tautology,
            readable: unreadable_reason.is_none(),
            unreadable_reason: unreadable_reason.map(str::to_owned),
            count: u32::try_from(statements.len()).unwrap_or(u32::MAX),
        }),
        mentions: Arc::new(mentions),
        verbs,
        by_name: None,
        around: None,
        unsafe_setting,
        syntax_error: None,
    }
}

/// Whitespace, comments and semicolons: the server answers EmptyQueryResponse, and drivers use it as a ping.
fn empty(text: Bytes) -> Reading {
    Reading {
        statement: Arc::new(Statement {
            text,
            effects: Effects::default(),
            objects: Vec::new(),
            has_where: true,
            where_tautology: false,
            readable: true,
            unreadable_reason: None,
            count: 0,
        }),
        mentions: Arc::new(Mentions::default()),
        verbs: Vec::new(),
        by_name: None,
        around: None,
        unsafe_setting: None,
        syntax_error: None,
    }
}

fn unreadable(text: &Bytes, why: &str) -> Reading {
    Reading {
        statement: Arc::new(Statement {
            text: redact::hide_after_password(text),
            effects: Effects::of(&[Effect::Unreadable]),
            objects: Vec::new(),
            has_where: true,
            where_tautology: false,
            readable: false,
            unreadable_reason: Some(why.to_owned()),
            count: 0,
        }),
        mentions: Arc::new(Mentions::unknown()),
        verbs: Vec::new(),
        by_name: None,
        around: None,
        unsafe_setting: None,
        syntax_error: None,
    }
}
