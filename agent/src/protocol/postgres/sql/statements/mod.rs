//! What each kind of statement does: its command tag and its effects.
//!
//! Both are closed lists, side by side in the file of a group of statements. A statement without a tag is unreadable.

mod change;
mod code;
mod data;
mod define;
mod grant;
mod objects;
mod options;
mod remove;
mod session;
mod upkeep;

use pg_query::{NodeRef as N, protobuf::ExplainStmt};

use super::{Verb, nodes::node_of, walk::Walk};
use options::{definitions, is_string};

/// The verb of a statement that is not in the list.
pub(super) const UNKNOWN: Verb = Verb { tag: "UNKNOWN", copy_out: false, copy_in: false, transaction: None };

/// What a statement is; `UNKNOWN` for what is no statement of PostgreSQL 17.
pub(super) fn verb(node: N<'_>) -> Verb {
    let plain = |tag| Verb { tag, ..UNKNOWN };
    match node {
        N::CopyStmt(copy) => {
            let with_client = copy.filename.is_empty() && !copy.is_program;
            Verb { tag: "COPY", copy_in: with_client && copy.is_from, copy_out: with_client && !copy.is_from, transaction: None }
        }
        N::TransactionStmt(statement) => session::transaction(statement),
        node => plain(tag(node).unwrap_or(UNKNOWN.tag)),
    }
}

fn tag(node: N<'_>) -> Option<&'static str> {
    data::tag(node)
        .or_else(|| code::tag(node))
        .or_else(|| session::tag(node))
        .or_else(|| define::tag(node))
        .or_else(|| change::tag(node))
        .or_else(|| remove::tag(node))
        .or_else(|| grant::tag(node))
        .or_else(|| upkeep::tag(node))
}

/// Adds the effects and objects of a statement, and of the parts of statements that have some; queues what is below it. False: the
/// node is an expression or another part without effects of its own.
pub(super) fn judge<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    data::judge(walk, node)
        || code::judge(walk, node)
        || session::judge(walk, node)
        || define::judge(walk, node)
        || change::judge(walk, node)
        || remove::judge(walk, node)
        || grant::judge(walk, node)
        || upkeep::judge(walk, node)
}

/// True if EXPLAIN runs the statement: any ANALYZE that is not plainly switched off.
pub(super) fn executes(explain: &ExplainStmt) -> bool {
    let is_off =
        |value: N<'_>| is_string(value, &["off", "false", "no", "0"]) || matches!(value, N::Integer(number) if number.ival == 0);
    definitions(&explain.options)
        .filter(|option| option.defname.eq_ignore_ascii_case("analyze"))
        .any(|option| !option.arg.as_deref().and_then(node_of).is_some_and(is_off))
}
