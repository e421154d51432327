//! Who may do what.

use pg_query::{NodeRef as N, protobuf::GrantStmt};

use super::{
    super::{nodes::node_of, walk::Walk},
    objects::{roles, target},
};
use crate::flow::{
    Effect::{Alter, Grant},
    ObjectKind,
};

pub(super) fn tag(node: N<'_>) -> Option<&'static str> {
    Some(match node {
        N::GrantStmt(grant) => grant_tag(grant.is_grant),
        N::GrantRoleStmt(grant) => grant_tag(grant.is_grant),
        N::AlterDefaultPrivilegesStmt(_) => "ALTER",
        N::ReassignOwnedStmt(_) => "REASSIGN OWNED",
        _ => return None,
    })
}

fn grant_tag(is_grant: bool) -> &'static str {
    if is_grant { "GRANT" } else { "REVOKE" }
}

pub(super) fn judge<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::GrantStmt(grant) => self::grant(walk, grant),
        N::GrantRoleStmt(grant) => {
            walk.effects(&[Grant]);
            let granted = grant.granted_roles.iter().filter_map(node_of);
            granted.for_each(|role| {
                if let N::AccessPriv(role) = role {
                    walk.object(ObjectKind::Role, None, &role.priv_name, true)
                }
            });
            roles(walk, &grant.grantee_roles);
        }
        N::AlterDefaultPrivilegesStmt(_) => {
            walk.effects(&[Grant]);
            walk.descend(node);
        }
        N::ReassignOwnedStmt(reassign) => {
            walk.effects(&[Alter, Grant]);
            roles(walk, &reassign.roles);
        }
        _ => return false,
    }
    true
}

fn grant<'a>(walk: &mut Walk<'a>, grant: &'a GrantStmt) {
    walk.effects(&[Grant]);
    grant.objects.iter().for_each(|object| target(walk, grant.objtype(), object));
    roles(walk, &grant.grantees);
}
