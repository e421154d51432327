//! Small questions about the nodes of a tree.

use pg_query::{
    NodeRef,
    protobuf::{AConst, Node, a_const::Val},
};

pub(super) fn node_of(node: &Node) -> Option<NodeRef<'_>> {
    node.node.as_ref().map(|node| node.to_ref())
}

/// The strings of a list of names; anything else in it (`*`) is left out.
pub(super) fn strings(nodes: &[Node]) -> Vec<&str> {
    let string = |node| match node_of(node) {
        Some(NodeRef::String(string)) => Some(string.sval.as_str()),
        _ => None,
    };
    nodes.iter().filter_map(string).collect()
}

/// The value of a string literal, with or without casts.
pub(super) fn literal(node: &Node) -> Option<&str> {
    let mut node = node;
    loop {
        match node_of(node)? {
            NodeRef::AConst(AConst { val: Some(Val::Sval(string)), .. }) => return Some(&string.sval),
            NodeRef::TypeCast(cast) => node = cast.arg.as_deref()?,
            _ => return None,
        }
    }
}
