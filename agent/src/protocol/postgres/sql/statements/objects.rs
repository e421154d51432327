//! Notes the objects that statements name, in all the forms in which the grammar names them.

use std::ptr;

use pg_query::{
    NodeRef as N,
    protobuf::{Node, ObjectType, RangeVar, WithClause},
};

use super::super::{
    children::children,
    nodes::{node_of, strings},
    walk::{UNKNOWN_NODE, Walk},
};
use crate::flow::{Effect, ObjectKind};

pub(super) fn write_relation<'a>(walk: &mut Walk<'a>, relation: Option<&'a RangeVar>, kind: ObjectKind) {
    if let Some(relation) = relation {
        walk.relation(relation, kind, true);
    }
}

/// Notes the relation that a statement writes to, then visits everything else below it.
pub(super) fn write_and_descend<'a>(
    walk: &mut Walk<'a>,
    node: N<'a>,
    with: Option<&'a WithClause>,
    relation: Option<&'a RangeVar>,
    kind: ObjectKind,
) {
    write_relation(walk, relation, kind);
    let is_target = |below: N<'a>| matches!(below, N::RangeVar(var) if relation.is_some_and(|relation| ptr::eq(var, relation)));
    walk.descend_except(node, with, is_target);
}

/// As `write_and_descend`, for every relation directly below the statement.
pub(super) fn write_all_and_descend<'a>(walk: &mut Walk<'a>, node: N<'a>, kind: ObjectKind) {
    let mut below = Vec::new();
    if !children(node, &mut below) {
        walk.unreadable(UNKNOWN_NODE);
    }
    for relation in &below {
        if let N::RangeVar(relation) = relation {
            walk.relation(relation, kind, true);
        }
    }
    walk.descend_except(node, None, |below| matches!(below, N::RangeVar(_)));
}

pub(super) fn name_and_descend<'a>(walk: &mut Walk<'a>, node: N<'a>, effects: &[Effect], kind: ObjectKind, name: &str) {
    walk.effects(effects);
    if !name.is_empty() {
        walk.object(kind, None, name, true);
    }
    walk.descend(node);
}

pub(super) fn names_and_descend<'a>(walk: &mut Walk<'a>, node: N<'a>, effects: &[Effect], kind: ObjectKind, names: &'a [Node]) {
    walk.effects(effects);
    named(walk, kind, names);
    walk.descend(node);
}

/// Notes an object that is named by a list of strings: schema and name.
pub(super) fn named(walk: &mut Walk<'_>, kind: ObjectKind, names: &[Node]) {
    parts(walk, kind, &strings(names));
}

fn parts(walk: &mut Walk<'_>, kind: ObjectKind, parts: &[&str]) {
    if let Some((name, qualifiers)) = parts.split_last() {
        walk.object(kind, qualifiers.last().copied(), name, true);
    }
}

/// Notes the object of DROP, COMMENT, GRANT and the like, in whichever of the grammar's forms it is named.
pub(super) fn target<'a>(walk: &mut Walk<'a>, object_type: ObjectType, object: &'a Node) {
    let kind = kind_of(object_type);
    match node_of(object) {
        Some(N::RangeVar(relation)) => walk.relation(relation, kind, true),
        Some(N::String(name)) => walk.object(kind, None, &name.sval, true),
        Some(N::TypeName(name)) => named(walk, kind, &name.names),
        Some(N::ObjectWithArgs(object)) => named(walk, kind, &object.objname),
        Some(N::RoleSpec(role)) => walk.object(kind, None, &role.rolename, true),
        Some(N::List(list)) => {
            let names = strings(&list.items);
            match (belongs_to_relation(object_type), names.split_last()) {
                // `schema.table.part`: the table is changed as well.
                (true, Some((part, relation))) if !relation.is_empty() => {
                    parts(walk, ObjectKind::Table, relation);
                    walk.object(ObjectKind::Other, None, part, true);
                }
                _ => parts(walk, kind, &names),
            }
        }
        _ => {}
    }
}

fn belongs_to_relation(object_type: ObjectType) -> bool {
    matches!(
        object_type,
        ObjectType::ObjectColumn
            | ObjectType::ObjectPolicy
            | ObjectType::ObjectRule
            | ObjectType::ObjectTabconstraint
            | ObjectType::ObjectTrigger
    )
}

pub(super) fn roles(walk: &mut Walk<'_>, roles: &[Node]) {
    for role in roles.iter().filter_map(node_of) {
        if let N::RoleSpec(role) = role {
            walk.object(ObjectKind::Role, None, &role.rolename, true);
        }
    }
}

pub(super) fn kind_of(object_type: ObjectType) -> ObjectKind {
    match object_type {
        ObjectType::ObjectDatabase => ObjectKind::Database,
        ObjectType::ObjectAggregate | ObjectType::ObjectFunction | ObjectType::ObjectProcedure | ObjectType::ObjectRoutine => {
            ObjectKind::Function
        }
        ObjectType::ObjectIndex => ObjectKind::Index,
        ObjectType::ObjectRole => ObjectKind::Role,
        ObjectType::ObjectSchema => ObjectKind::Schema,
        ObjectType::ObjectSequence => ObjectKind::Sequence,
        ObjectType::ObjectForeignTable | ObjectType::ObjectTable => ObjectKind::Table,
        ObjectType::ObjectDomain | ObjectType::ObjectType => ObjectKind::Type,
        ObjectType::ObjectMatview | ObjectType::ObjectView => ObjectKind::View,
        _ => ObjectKind::Other,
    }
}
