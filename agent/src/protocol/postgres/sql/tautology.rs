//! Conditions that hold, or fail, whatever the row.

use pg_query::{
    NodeRef,
    protobuf::{BoolExprType, Node},
};

use super::{
    children::children,
    nodes::{node_of, strings},
};

/// True for a condition that holds (or fails) whatever the row: it reads no column, parameter, relation or cursor. A disjunction is one
/// if any arm is, a conjunction if all are.
pub(super) fn is_tautology(condition: NodeRef<'_>) -> bool {
    // Negation and nesting do not matter: what counts is that no row can change the result. So all leaves of a conjunction, or one
    // arm of a disjunction; the recursion is over the latter's arms only, collected on a list.
    let mut pending = vec![condition];
    while let Some(node) = pending.pop() {
        match node {
            NodeRef::BoolExpr(expression) if expression.boolop() == BoolExprType::OrExpr => {
                pending.extend(expression.args.iter().filter_map(node_of));
            }
            _ if is_constant(node) || is_reflexive(node) => return true,
            _ => {}
        }
    }
    false
}

fn is_constant(node: NodeRef<'_>) -> bool {
    let mut pending = vec![node];
    while let Some(node) = pending.pop() {
        match node {
            NodeRef::ColumnRef(_) | NodeRef::CurrentOfExpr(_) | NodeRef::ParamRef(_) | NodeRef::RangeVar(_) => return false,
            _ if !children(node, &mut pending) => return false,
            _ => {}
        }
    }
    true
}

/// `id = id`.
fn is_reflexive(node: NodeRef<'_>) -> bool {
    let NodeRef::AExpr(expression) = node else { return false };
    let (left, right) = (column(expression.lexpr.as_deref()), column(expression.rexpr.as_deref()));
    let (Some(left), Some(right)) = (left, right) else { return false };
    // `id` is `t.id`, but `t.id` is not `s.id`.
    let is_same = left.iter().rev().zip(right.iter().rev()).all(|(left, right)| left == right);
    is_same && matches!(strings(&expression.name).last(), Some(&("=" | ">=" | "<=")))
}

fn column(node: Option<&Node>) -> Option<Vec<&str>> {
    match node.and_then(node_of)? {
        NodeRef::ColumnRef(column) => Some(strings(&column.fields)),
        _ => None,
    }
}
