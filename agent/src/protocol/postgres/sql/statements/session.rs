//! Session state, transactions, notifications.

use pg_query::{
    NodeRef as N,
    protobuf::{AConst, Node, TransactionStmt, TransactionStmtKind, VariableSetKind, VariableSetStmt, a_const::Val},
};

use super::{
    super::{
        TransactionVerb, Verb,
        nodes::{literal, node_of},
        settings,
        walk::Walk,
    },
    UNKNOWN,
};
use crate::flow::Effect::{Admin, Notify, Update};

pub(super) fn tag(node: N<'_>) -> Option<&'static str> {
    Some(match node {
        N::VariableSetStmt(set) => match set.kind() {
            VariableSetKind::VarReset | VariableSetKind::VarResetAll => "RESET",
            _ => "SET",
        },
        N::VariableShowStmt(_) => "SHOW",
        N::ConstraintsSetStmt(_) => "SET CONSTRAINTS",
        N::DiscardStmt(_) => "DISCARD",
        N::ListenStmt(_) => "LISTEN",
        N::UnlistenStmt(_) => "UNLISTEN",
        N::NotifyStmt(_) => "NOTIFY",
        N::LockStmt(_) => "LOCK TABLE",
        N::DeallocateStmt(_) => "DEALLOCATE",
        N::ClosePortalStmt(_) => "CLOSE CURSOR",
        _ => return None,
    })
}

pub(super) fn transaction(statement: &TransactionStmt) -> Verb {
    let (tag, verb) = match statement.kind() {
        TransactionStmtKind::TransStmtBegin => ("BEGIN", TransactionVerb::Begin),
        TransactionStmtKind::TransStmtStart => ("START TRANSACTION", TransactionVerb::Begin),
        TransactionStmtKind::TransStmtCommit => ("COMMIT", TransactionVerb::Commit),
        TransactionStmtKind::TransStmtRollback => ("ROLLBACK", TransactionVerb::Rollback),
        TransactionStmtKind::TransStmtSavepoint => ("SAVEPOINT", TransactionVerb::Savepoint),
        TransactionStmtKind::TransStmtRelease => ("RELEASE", TransactionVerb::Release),
        TransactionStmtKind::TransStmtRollbackTo => ("ROLLBACK", TransactionVerb::RollbackTo),
        TransactionStmtKind::TransStmtPrepare => ("PREPARE TRANSACTION", TransactionVerb::Prepare),
        TransactionStmtKind::TransStmtCommitPrepared => ("COMMIT PREPARED", TransactionVerb::CommitPrepared),
        TransactionStmtKind::TransStmtRollbackPrepared => ("ROLLBACK PREPARED", TransactionVerb::RollbackPrepared),
        TransactionStmtKind::Undefined => return UNKNOWN,
    };
    Verb { tag, transaction: Some(verb), ..UNKNOWN }
}

pub(super) fn judge<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::VariableSetStmt(set) => self::set(walk, set),
        N::VariableShowStmt(show) => {
            if show.name.contains('.') {
                walk.opaque();
            }
        }
        N::NotifyStmt(_) | N::ListenStmt(_) | N::UnlistenStmt(_) => walk.effects(&[Notify]),
        N::LockStmt(_) => {
            walk.effects(&[Update]);
            walk.descend(node);
        }
        N::TransactionStmt(statement) => {
            if matches!(
                statement.kind(),
                TransactionStmtKind::TransStmtPrepare
                    | TransactionStmtKind::TransStmtCommitPrepared
                    | TransactionStmtKind::TransStmtRollbackPrepared
            ) {
                walk.effects(&[Admin]);
            }
        }
        N::DeallocateStmt(_) | N::ClosePortalStmt(_) | N::ConstraintsSetStmt(_) | N::DiscardStmt(_) => {}
        _ => return false,
    }
    true
}

fn set(walk: &mut Walk<'_>, set: &VariableSetStmt) {
    walk.effects(settings::effect_of(&set.name).as_slice());
    if set.kind() == VariableSetKind::VarSetValue {
        walk.setting(&set.name, set.args.first().and_then(value).as_deref());
    }
}

/// The value of SET: a word, a string or a number.
fn value(node: &Node) -> Option<String> {
    match node_of(node)? {
        N::AConst(AConst { val: Some(Val::Ival(number)), .. }) => Some(number.ival.to_string()),
        _ => literal(node).map(str::to_owned),
    }
}
