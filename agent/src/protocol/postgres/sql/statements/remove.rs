//! DROP in all its forms.

use pg_query::NodeRef as N;

use super::{
    super::walk::Walk,
    objects::{name_and_descend, roles, target},
};
use crate::flow::{
    Effect::{Admin, Drop, Grant, Replication},
    ObjectKind,
};

pub(super) fn tag(node: N<'_>) -> Option<&'static str> {
    Some(match node {
        N::DropStmt(_)
        | N::DropdbStmt(_)
        | N::DropTableSpaceStmt(_)
        | N::DropUserMappingStmt(_)
        | N::DropSubscriptionStmt(_)
        | N::DropRoleStmt(_)
        | N::DropOwnedStmt(_) => "DROP",
        _ => return None,
    })
}

pub(super) fn judge<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::DropStmt(drop) => {
            walk.effects(&[Drop]);
            drop.objects.iter().for_each(|name| target(walk, drop.remove_type(), name));
        }
        N::DropdbStmt(drop) => name_and_descend(walk, node, &[Drop], ObjectKind::Database, &drop.dbname),
        N::DropTableSpaceStmt(drop) => name_and_descend(walk, node, &[Drop, Admin], ObjectKind::Other, &drop.tablespacename),
        N::DropUserMappingStmt(drop) => name_and_descend(walk, node, &[Drop], ObjectKind::Other, &drop.servername),
        N::DropSubscriptionStmt(drop) => name_and_descend(walk, node, &[Drop, Replication], ObjectKind::Other, &drop.subname),
        N::DropRoleStmt(drop) => {
            walk.effects(&[Drop, Admin]);
            roles(walk, &drop.roles);
        }
        N::DropOwnedStmt(drop) => {
            walk.effects(&[Drop, Grant]);
            roles(walk, &drop.roles);
        }
        _ => return false,
    }
    true
}
