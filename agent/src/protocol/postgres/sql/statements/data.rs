//! Queries, rows in and out.

use pg_query::{
    NodeRef as N,
    protobuf::{CmdType, CopyStmt, InsertStmt, MergeStmt, OnConflictAction, SelectStmt, SetOperation},
};

use super::{
    super::{nodes::node_of, reads::reads_of, walk::Walk},
    objects::{write_all_and_descend, write_and_descend},
};
use crate::flow::{
    Effect::{Create, Delete, FileRead, FileWrite, Insert, Program, Read, Truncate, Update},
    ObjectKind,
};

pub(super) fn tag(node: N<'_>) -> Option<&'static str> {
    Some(match node {
        N::SelectStmt(select) if select.into_clause.is_some() => "SELECT INTO",
        N::SelectStmt(_) => "SELECT",
        N::InsertStmt(_) => "INSERT",
        N::UpdateStmt(_) => "UPDATE",
        N::DeleteStmt(_) => "DELETE",
        N::MergeStmt(_) => "MERGE",
        N::TruncateStmt(_) => "TRUNCATE TABLE",
        N::CreateTableAsStmt(_) => "CREATE TABLE AS",
        N::RefreshMatViewStmt(_) => "REFRESH MATERIALIZED VIEW",
        N::PrepareStmt(_) => "PREPARE",
        N::DeclareCursorStmt(_) => "DECLARE CURSOR",
        N::ExplainStmt(_) => "EXPLAIN",
        _ => return None,
    })
}

pub(super) fn judge<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::SelectStmt(select) => {
            if select.op() != SetOperation::SetopNone {
                walk.set_operation();
            }
            if select.into_clause.is_some() {
                walk.store(node);
            }
            // Names in FOR UPDATE OF are aliases, not relations.
            if !select.locking_clause.is_empty() {
                walk.effects(&[Update]);
            }
            walk.descend_except(node, select.with_clause.as_ref(), |below| matches!(below, N::LockingClause(_)));
        }
        N::InsertStmt(insert) => self::insert(walk, node, insert),
        N::UpdateStmt(update) => {
            walk.effects(&[Update]);
            walk.condition(update.where_clause.as_deref());
            // Without other relations, a column that is made from itself stays under its own mask.
            let alone = update.from_clause.is_empty() && update.with_clause.is_none();
            update.target_list.iter().filter_map(node_of).for_each(|assignment| walk.store_assignment(assignment, alone));
            write_and_descend(walk, node, update.with_clause.as_ref(), update.relation.as_ref(), ObjectKind::Table);
        }
        N::DeleteStmt(delete) => {
            walk.effects(&[Delete]);
            walk.condition(delete.where_clause.as_deref());
            write_and_descend(walk, node, delete.with_clause.as_ref(), delete.relation.as_ref(), ObjectKind::Table);
        }
        N::MergeStmt(merge) => self::merge(walk, node, merge),
        N::CopyStmt(copy) => self::copy(walk, node, copy),
        N::TruncateStmt(_) => {
            walk.effects(&[Truncate]);
            write_all_and_descend(walk, node, ObjectKind::Table);
        }
        N::IntoClause(into) => {
            walk.effects(&[Create, Insert]);
            write_and_descend(walk, node, None, into.rel.as_ref(), ObjectKind::Table);
        }
        N::CreateTableAsStmt(create) => {
            walk.effects(&[Create]);
            if let Some(query) = create.query.as_deref().and_then(node_of) {
                walk.store(query);
            }
            walk.descend(node);
        }
        N::RefreshMatViewStmt(_) => {
            walk.effects(&[Read, Update]);
            write_all_and_descend(walk, node, ObjectKind::View);
        }
        // PREPARE, DECLARE and EXPLAIN ANALYZE do what the statement in them does.
        N::PrepareStmt(_) | N::DeclareCursorStmt(_) | N::ExplainStmt(_) => walk.descend(node),
        _ => return false,
    }
    true
}

/// Rows that are written out. A function among them may return many rows more.
fn is_plain_values(query: &SelectStmt) -> bool {
    let reads = reads_of(N::SelectStmt(query));
    !query.values_lists.is_empty() && reads.functions.is_empty() && !reads.sublinks
}

fn insert<'a>(walk: &mut Walk<'a>, node: N<'a>, insert: &'a InsertStmt) {
    walk.effects(&[Insert]);
    if insert.on_conflict_clause.as_ref().is_some_and(|clause| clause.action() == OnConflictAction::OnconflictUpdate) {
        walk.effects(&[Update]);
        // Rows that are given one by one are met by their keys; a query may meet them all.
        let clause = insert.on_conflict_clause.as_ref().and_then(|clause| clause.where_clause.as_deref());
        if let Some(N::SelectStmt(query)) = insert.select_stmt.as_deref().and_then(node_of)
            && !is_plain_values(query)
        {
            walk.condition(clause.or(query.where_clause.as_deref()));
        } else if clause.is_some() {
            walk.condition(clause);
        }
    }
    if let Some(clause) = &insert.on_conflict_clause {
        clause.target_list.iter().filter_map(node_of).for_each(|assignment| walk.store_assignment(assignment, true));
    }
    if let Some(source) = insert.select_stmt.as_deref().and_then(node_of) {
        walk.store(source);
    }
    write_and_descend(walk, node, insert.with_clause.as_ref(), insert.relation.as_ref(), ObjectKind::Table);
}

fn merge<'a>(walk: &mut Walk<'a>, node: N<'a>, merge: &'a MergeStmt) {
    for clause in merge.merge_when_clauses.iter().filter_map(node_of) {
        let N::MergeWhenClause(clause) = clause else { continue };
        if matches!(clause.command_type(), CmdType::CmdUpdate | CmdType::CmdDelete) {
            let conditions = [merge.join_condition.as_deref(), clause.condition.as_deref()];
            walk.conditions(&conditions);
        }
        match clause.command_type() {
            CmdType::CmdInsert => walk.effects(&[Insert]),
            CmdType::CmdUpdate => walk.effects(&[Update]),
            CmdType::CmdDelete => walk.effects(&[Delete]),
            CmdType::CmdNothing => {}
            _ => walk.unreadable("an action of MERGE that is not known"),
        }
        clause.target_list.iter().chain(&clause.values).filter_map(node_of).for_each(|value| walk.store(value));
    }
    // The source's columns come in under its alias: what is stored may be any of them.
    if let Some(source) = merge.source_relation.as_deref().and_then(node_of) {
        walk.store(source);
    }
    write_and_descend(walk, node, merge.with_clause.as_ref(), merge.relation.as_ref(), ObjectKind::Table);
}

fn copy<'a>(walk: &mut Walk<'a>, node: N<'a>, copy: &'a CopyStmt) {
    let outside = match (copy.is_program, copy.filename.is_empty(), copy.is_from) {
        (true, ..) => Some(Program),
        (false, true, _) => None,
        (false, false, true) => Some(FileRead),
        (false, false, false) => Some(FileWrite),
    };
    walk.effects(outside.as_slice());
    if outside.is_some() && !copy.is_from {
        walk.store(node);
        if copy.relation.is_some() {
            walk.store_whole_rows();
        }
    }
    if !copy.is_from && copy.relation.is_some() {
        walk.copy_out(&copy.attlist);
    }
    if copy.is_from {
        walk.effects(&[Insert]);
        write_and_descend(walk, node, None, copy.relation.as_ref(), ObjectKind::Table);
    } else {
        walk.descend(node);
    }
}
