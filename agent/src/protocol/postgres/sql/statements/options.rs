//! Options of statements: `WITH (name = value)` and the like.

use pg_query::{
    NodeEnum, NodeRef as N,
    protobuf::{DefElem, Node},
};

use super::super::{
    nodes::{literal, node_of},
    redact::SecretLiteral,
    walk::Walk,
};

/// Marks the literals of options that hold a secret.
pub(super) fn passwords(walk: &mut Walk<'_>, options: &[Node]) {
    for option in definitions(options) {
        let name = option.defname.to_ascii_lowercase();
        if ["password", "passwd", "secret", "token", "key", "conninfo"].iter().any(|word| name.contains(word)) {
            walk.secret(SecretLiteral::After(usize::try_from(option.location).unwrap_or(0)));
        }
    }
}

pub(super) fn definitions(options: &[Node]) -> impl Iterator<Item = &DefElem> {
    options.iter().filter_map(|option| match node_of(option) {
        Some(N::DefElem(option)) => Some(option),
        _ => None,
    })
}

pub(super) fn is_string(node: N<'_>, values: &[&str]) -> bool {
    let is_value = |string: &str| values.iter().any(|value| string.eq_ignore_ascii_case(value));
    match node {
        N::String(string) => is_value(&string.sval),
        N::AConst(constant) => literal(&Node { node: Some(NodeEnum::AConst(constant.clone())) }).is_some_and(is_value),
        _ => false,
    }
}
