//! What the parts of a statement read, by name: the ground for masking its results.

use std::ptr;

use pg_query::{
    NodeRef,
    protobuf::{AExprKind, ColumnRef, Node, SelectStmt, SetOperation},
};

use super::{
    children::children,
    functions,
    nodes::{node_of, strings},
};
use crate::{
    flow::Effect,
    protocol::postgres::rows::{Reads, Reference, Target},
};

/// Everything that a part of a statement reads.
pub(super) fn reads_of(node: NodeRef<'_>) -> Reads {
    let mut reads = Reads::default();
    let mut pending = vec![node];
    while let Some(node) = pending.pop() {
        note(node, &mut reads, &[]);
        reads.opaque |= !children(node, &mut pending);
        if let NodeRef::FuncCall(call) = node {
            let effects = strings(&call.funcname).last().map(|name| functions::effects_of(name)).unwrap_or_default();
            reads.opaque |= effects.contains(Effect::Unreadable);
        }
    }
    reads
}

/// Notes what one node reads, without its children.
pub(super) fn note(node: NodeRef<'_>, reads: &mut Reads, outer_stars: &[&ColumnRef]) {
    match node {
        NodeRef::ColumnRef(column) => {
            if matches!(column.fields.last().and_then(node_of), Some(NodeRef::AStar(_))) {
                reads.stars |= !outer_stars.iter().any(|star| ptr::eq(*star, column));
                return;
            }
            let parts = strings(&column.fields);
            if let Some((name, qualifiers)) = parts.split_last() {
                reads.columns.insert((qualifiers.last().map(|&qualifier| qualifier.to_owned()), (*name).to_owned()));
            }
        }
        NodeRef::AIndirection(indirection) => {
            for step in indirection.indirection.iter().filter_map(node_of) {
                match step {
                    NodeRef::String(name) => drop(reads.columns.insert((None, name.sval.clone()))),
                    NodeRef::AStar(_) => reads.stars = true,
                    _ => {}
                }
            }
        }
        NodeRef::JoinExpr(join) => {
            reads.columns.extend(strings(&join.using_clause).into_iter().map(|name| (None, name.to_owned())));
        }
        NodeRef::Alias(alias) => reads.stars |= !alias.colnames.is_empty(),
        NodeRef::CommonTableExpr(expression) => reads.stars |= !expression.aliascolnames.is_empty(),
        NodeRef::FuncCall(call) => {
            let parts = strings(&call.funcname);
            if let Some((name, qualifiers)) = parts.split_last() {
                reads.opaque |= functions::is_opaque(name, call);
                reads.functions.insert((qualifiers.last().map(|&schema| schema.to_owned()), (*name).to_owned()));
            }
        }
        NodeRef::AExpr(expression) => match expression.kind() {
            AExprKind::AexprBetween | AExprKind::AexprNotBetween | AExprKind::AexprBetweenSym | AExprKind::AexprNotBetweenSym => {
                reads.operators.extend(["<", "<=", ">", ">="].map(str::to_owned))
            }
            _ => reads.operators.extend(strings(&expression.name).last().map(|&name| name.to_owned())),
        },
        NodeRef::SortBy(sort) => reads.operators.extend(strings(&sort.use_op).last().map(|&name| name.to_owned())),
        NodeRef::TypeCast(_) => reads.casts = true,
        NodeRef::SubLink(link) => {
            reads.sublinks = true;
            reads.operators.extend(strings(&link.oper_name).last().map(|&name| name.to_owned()));
        }
        _ => {}
    }
}

/// What each output reads, for a statement whose values come from plain relations only.
pub(super) fn targets(node: NodeRef<'_>) -> Option<Vec<Target>> {
    let (list, sources, is_plain) = match node {
        NodeRef::PrepareStmt(prepare) => return targets(prepare.query.as_deref().and_then(node_of)?),
        NodeRef::DeclareCursorStmt(declare) => return targets(declare.query.as_deref().and_then(node_of)?),
        NodeRef::SelectStmt(select) => {
            let is_plain = select.with_clause.is_none() && select.values_lists.is_empty() && is_single(select);
            (&select.target_list, &select.from_clause, is_plain)
        }
        NodeRef::InsertStmt(insert) => (&insert.returning_list, NO_NODES, insert.with_clause.is_none()),
        NodeRef::UpdateStmt(update) => (&update.returning_list, &update.from_clause, update.with_clause.is_none()),
        NodeRef::DeleteStmt(delete) => (&delete.returning_list, &delete.using_clause, delete.with_clause.is_none()),
        _ => return None,
    };
    if !is_plain || !sources.iter().filter_map(node_of).all(is_plain_source) {
        return None;
    }
    list.iter().map(target).collect()
}

/// The name that a statement gives to a query.
pub(super) fn defined(node: NodeRef<'_>) -> Option<Reference> {
    match node {
        NodeRef::PrepareStmt(prepare) => Some(Reference::Prepared(prepare.name.clone())),
        NodeRef::DeclareCursorStmt(declare) => Some(Reference::Cursor(declare.portalname.clone())),
        _ => None,
    }
}

/// The name of the query whose results a statement gives, if nothing else can be in them.
pub(super) fn referred(node: NodeRef<'_>) -> Option<Reference> {
    match node {
        NodeRef::ExecuteStmt(execute) if reads_of(node) == Reads::default() => Some(Reference::Prepared(execute.name.clone())),
        NodeRef::FetchStmt(fetch) => Some(Reference::Cursor(fetch.portalname.clone())),
        _ => None,
    }
}

/// Stars of the outermost list of outputs: their columns keep their origin.
pub(super) fn outer_stars(node: NodeRef<'_>) -> Vec<&ColumnRef> {
    let list = match node {
        NodeRef::PrepareStmt(prepare) => return prepare.query.as_deref().and_then(node_of).map(outer_stars).unwrap_or_default(),
        NodeRef::DeclareCursorStmt(declare) => {
            return declare.query.as_deref().and_then(node_of).map(outer_stars).unwrap_or_default();
        }
        NodeRef::SelectStmt(select) if is_single(select) => &select.target_list,
        NodeRef::InsertStmt(insert) => &insert.returning_list,
        NodeRef::UpdateStmt(update) => &update.returning_list,
        NodeRef::DeleteStmt(delete) => &delete.returning_list,
        _ => return Vec::new(),
    };
    list.iter().filter_map(star).collect()
}

const NO_NODES: &Vec<Node> = &Vec::new();

fn is_single(select: &SelectStmt) -> bool {
    select.op() == SetOperation::SetopNone && select.larg.is_none() && select.rarg.is_none()
}

/// Tables and unnamed joins of tables, without renamed columns.
fn is_plain_source(source: NodeRef<'_>) -> bool {
    let mut pending = vec![source];
    while let Some(source) = pending.pop() {
        match source {
            NodeRef::RangeVar(relation) if relation.alias.as_ref().is_none_or(|alias| alias.colnames.is_empty()) => {}
            NodeRef::JoinExpr(join) if join.alias.is_none() => {
                pending.extend(join.larg.as_deref().and_then(node_of));
                pending.extend(join.rarg.as_deref().and_then(node_of));
            }
            _ => return false,
        }
    }
    true
}

fn target(node: &Node) -> Option<Target> {
    let NodeRef::ResTarget(target) = node_of(node)? else { return None };
    let value = target.val.as_deref().and_then(node_of)?;
    match star(node) {
        Some(_) => Some(Target::Star),
        None => Some(Target::Value(reads_of(value))),
    }
}

/// The star of a select list's entry, if it is one.
fn star(target: &Node) -> Option<&ColumnRef> {
    let NodeRef::ResTarget(target) = node_of(target)? else { return None };
    match target.val.as_deref().and_then(node_of)? {
        NodeRef::ColumnRef(column) if matches!(column.fields.last().and_then(node_of), Some(NodeRef::AStar(_))) => Some(column),
        _ => None,
    }
}
