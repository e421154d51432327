//! Upkeep of the server and its files.

use pg_query::NodeRef as N;

use super::{super::walk::Walk, objects::write_all_and_descend};
use crate::flow::{
    Effect::{Admin, Alter},
    ObjectKind,
};

pub(super) fn tag(node: N<'_>) -> Option<&'static str> {
    Some(match node {
        N::VacuumStmt(vacuum) if !vacuum.is_vacuumcmd => "ANALYZE",
        N::VacuumStmt(_) => "VACUUM",
        N::ClusterStmt(_) => "CLUSTER",
        N::ReindexStmt(_) => "REINDEX",
        N::CheckPointStmt(_) => "CHECKPOINT",
        N::AlterSystemStmt(_) => "ALTER SYSTEM",
        _ => return None,
    })
}

pub(super) fn judge<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::VacuumStmt(_) | N::ClusterStmt(_) | N::ReindexStmt(_) | N::CheckPointStmt(_) => {
            walk.effects(&[Admin]);
            write_all_and_descend(walk, node, ObjectKind::Table);
        }
        N::VacuumRelation(_) => write_all_and_descend(walk, node, ObjectKind::Table),
        N::AlterSystemStmt(_) => {
            walk.effects(&[Admin, Alter]);
            walk.descend(node);
        }
        _ => return false,
    }
    true
}
