//! CREATE in all its forms.

use pg_query::{NodeRef as N, protobuf::ConstrType};

use super::{
    super::{nodes::node_of, redact::SecretLiteral, walk::Walk},
    objects::{kind_of, name_and_descend, named, names_and_descend, write_all_and_descend, write_and_descend},
    options::passwords,
};
use crate::flow::{
    Effect::{Admin, Create, Grant, Network, Replication},
    ObjectKind,
};

pub(super) fn tag(node: N<'_>) -> Option<&'static str> {
    Some(match node {
        N::CreateStmt(_) | N::CreateForeignTableStmt(_) => "CREATE TABLE",
        N::ViewStmt(_) => "CREATE VIEW",
        N::IndexStmt(_) => "CREATE INDEX",
        N::CreateSchemaStmt(_) => "CREATE SCHEMA",
        N::CreateSeqStmt(_)
        | N::CompositeTypeStmt(_)
        | N::CreateTrigStmt(_)
        | N::RuleStmt(_)
        | N::CreatePolicyStmt(_)
        | N::CreatedbStmt(_)
        | N::CreateDomainStmt(_)
        | N::CreateEnumStmt(_)
        | N::CreateRangeStmt(_)
        | N::DefineStmt(_)
        | N::CreateOpClassStmt(_)
        | N::CreateOpFamilyStmt(_)
        | N::CreateConversionStmt(_)
        | N::CreateStatsStmt(_)
        | N::CreateCastStmt(_)
        | N::CreateTransformStmt(_)
        | N::CreateExtensionStmt(_)
        | N::CreatePlangStmt(_)
        | N::CreateAmStmt(_)
        | N::CreateEventTrigStmt(_)
        | N::CreateTableSpaceStmt(_)
        | N::CreateRoleStmt(_)
        | N::CreateFdwStmt(_)
        | N::CreateForeignServerStmt(_)
        | N::CreateUserMappingStmt(_)
        | N::CreatePublicationStmt(_)
        | N::CreateSubscriptionStmt(_) => "CREATE",
        N::ImportForeignSchemaStmt(_) => "IMPORT FOREIGN SCHEMA",
        _ => return None,
    })
}

pub(super) fn judge<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    relations(walk, node) || names(walk, node) || server(walk, node) || elsewhere(walk, node)
}

/// Relations, and what belongs to one.
fn relations<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        // Defaults and generated columns are stored.
        N::Constraint(constraint) => {
            if let Some(value) = constraint.raw_expr.as_deref().and_then(node_of)
                && matches!(constraint.contype(), ConstrType::ConstrDefault | ConstrType::ConstrGenerated)
            {
                walk.store(value);
            }
            return false;
        }
        N::CreateStmt(create) => {
            walk.effects(&[Create]);
            write_and_descend(walk, node, None, create.relation.as_ref(), ObjectKind::Table);
        }
        N::ViewStmt(view) => {
            walk.effects(&[Create]);
            write_and_descend(walk, node, None, view.view.as_ref(), ObjectKind::View);
        }
        N::IndexStmt(index) => {
            walk.effects(&[Create]);
            walk.object(ObjectKind::Index, None, &index.idxname, true);
            write_and_descend(walk, node, None, index.relation.as_ref(), ObjectKind::Table);
        }
        N::CreateSeqStmt(create) => {
            walk.effects(&[Create]);
            write_and_descend(walk, node, None, create.sequence.as_ref(), ObjectKind::Sequence);
        }
        N::CompositeTypeStmt(create) => {
            walk.effects(&[Create]);
            write_and_descend(walk, node, None, create.typevar.as_ref(), ObjectKind::Type);
        }
        N::CreateTrigStmt(create) => {
            named(walk, ObjectKind::Function, &create.funcname);
            walk.effects(&[Create]);
            walk.relabel(create.relation.as_ref(), None);
            walk.object(ObjectKind::Other, None, &create.trigname, true);
            write_all_and_descend(walk, node, ObjectKind::Table);
        }
        N::RuleStmt(rule) => {
            // Its actions run whenever the rule fires: they are judged here, as if they ran now.
            walk.effects(&[Create]);
            walk.relabel(rule.relation.as_ref(), None);
            walk.object(ObjectKind::Other, None, &rule.rulename, true);
            write_and_descend(walk, node, None, rule.relation.as_ref(), ObjectKind::Table);
        }
        N::CreatePolicyStmt(policy) => {
            walk.effects(&[Create, Grant]);
            walk.relabel(policy.table.as_ref(), None);
            walk.object(ObjectKind::Other, None, &policy.policy_name, true);
            write_and_descend(walk, node, None, policy.table.as_ref(), ObjectKind::Table);
        }
        _ => return false,
    }
    true
}

/// What is a name in a schema or a database, with nothing more to say.
fn names<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::CreateSchemaStmt(create) => name_and_descend(walk, node, &[Create], ObjectKind::Schema, &create.schemaname),
        N::CreatedbStmt(create) => name_and_descend(walk, node, &[Create], ObjectKind::Database, &create.dbname),
        N::CreateDomainStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Type, &create.domainname),
        N::CreateEnumStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Type, &create.type_name),
        N::CreateRangeStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Type, &create.type_name),
        N::DefineStmt(define) => names_and_descend(walk, node, &[Create], kind_of(define.kind()), &define.defnames),
        N::CreateOpClassStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Other, &create.opclassname),
        N::CreateOpFamilyStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Other, &create.opfamilyname),
        N::CreateConversionStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Other, &create.conversion_name),
        N::CreateStatsStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Other, &create.defnames),
        N::CreateCastStmt(_) | N::CreateTransformStmt(_) => name_and_descend(walk, node, &[Create], ObjectKind::Other, ""),
        _ => return false,
    }
    true
}

/// What changes the server: its code, its files, who may log in.
fn server<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::CreateExtensionStmt(create) => name_and_descend(walk, node, &[Create, Admin], ObjectKind::Other, &create.extname),
        N::CreatePlangStmt(create) => name_and_descend(walk, node, &[Create, Admin], ObjectKind::Other, &create.plname),
        N::CreateAmStmt(create) => name_and_descend(walk, node, &[Create, Admin], ObjectKind::Other, &create.amname),
        N::CreateEventTrigStmt(create) => name_and_descend(walk, node, &[Create, Admin], ObjectKind::Other, &create.trigname),
        N::CreateTableSpaceStmt(create) => {
            name_and_descend(walk, node, &[Create, Admin], ObjectKind::Other, &create.tablespacename)
        }
        N::CreateRoleStmt(create) => {
            passwords(walk, &create.options);
            name_and_descend(walk, node, &[Create, Admin], ObjectKind::Role, &create.role);
        }
        _ => return false,
    }
    true
}

/// What makes the server speak with others.
fn elsewhere<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::CreateFdwStmt(create) => {
            passwords(walk, &create.options);
            name_and_descend(walk, node, &[Create, Network], ObjectKind::Other, &create.fdwname);
        }
        N::CreateForeignServerStmt(create) => {
            passwords(walk, &create.options);
            name_and_descend(walk, node, &[Create, Network], ObjectKind::Other, &create.servername);
        }
        N::CreateUserMappingStmt(create) => {
            passwords(walk, &create.options);
            name_and_descend(walk, node, &[Create, Network], ObjectKind::Other, &create.servername);
        }
        N::CreateForeignTableStmt(create) => {
            passwords(walk, &create.options);
            name_and_descend(walk, node, &[Create, Network], ObjectKind::Other, &create.servername);
        }
        N::ImportForeignSchemaStmt(import) => {
            // The table list names tables of the other server.
            walk.effects(&[Create, Network]);
            walk.object(ObjectKind::Schema, None, &import.local_schema, true);
            walk.object(ObjectKind::Other, None, &import.server_name, false);
        }
        N::CreatePublicationStmt(create) => {
            name_and_descend(walk, node, &[Create, Replication], ObjectKind::Other, &create.pubname);
        }
        N::CreateSubscriptionStmt(create) => {
            walk.secret(SecretLiteral::All);
            name_and_descend(walk, node, &[Create, Replication, Network], ObjectKind::Other, &create.subname);
        }
        _ => return false,
    }
    true
}
