//! ALTER in all its forms, labels and comments.

use pg_query::{
    NodeRef as N,
    protobuf::{AlterTableCmd, AlterTableStmt, AlterTableType, ObjectType},
};

use super::{
    super::{nodes::node_of, redact::SecretLiteral, walk::Walk},
    objects::{
        kind_of, name_and_descend, named, names_and_descend, target, write_all_and_descend, write_and_descend, write_relation,
    },
    options::passwords,
};
use crate::flow::{
    Effect::{Admin, Alter, Drop, Grant, Network, Replication},
    ObjectKind,
};

pub(super) fn tag(node: N<'_>) -> Option<&'static str> {
    Some(match node {
        N::AlterTableStmt(_) => "ALTER TABLE",
        N::AlterSeqStmt(_)
        | N::AlterPolicyStmt(_)
        | N::RenameStmt(_)
        | N::AlterOwnerStmt(_)
        | N::AlterObjectSchemaStmt(_)
        | N::AlterObjectDependsStmt(_)
        | N::AlterDomainStmt(_)
        | N::AlterTypeStmt(_)
        | N::AlterEnumStmt(_)
        | N::AlterCollationStmt(_)
        | N::AlterStatsStmt(_)
        | N::AlterOpFamilyStmt(_)
        | N::AlterTsdictionaryStmt(_)
        | N::AlterTsconfigurationStmt(_)
        | N::AlterOperatorStmt(_)
        | N::AlterFunctionStmt(_)
        | N::AlterExtensionStmt(_)
        | N::AlterExtensionContentsStmt(_)
        | N::AlterEventTrigStmt(_)
        | N::AlterTableSpaceOptionsStmt(_)
        | N::AlterTableMoveAllStmt(_)
        | N::AlterDatabaseStmt(_)
        | N::AlterDatabaseSetStmt(_)
        | N::AlterDatabaseRefreshCollStmt(_)
        | N::AlterRoleStmt(_)
        | N::AlterRoleSetStmt(_)
        | N::AlterFdwStmt(_)
        | N::AlterForeignServerStmt(_)
        | N::AlterUserMappingStmt(_)
        | N::AlterPublicationStmt(_)
        | N::AlterSubscriptionStmt(_) => "ALTER",
        N::CommentStmt(_) => "COMMENT",
        N::SecLabelStmt(_) => "SECURITY LABEL",
        _ => return None,
    })
}

pub(super) fn judge<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    relations(walk, node) || objects(walk, node) || names(walk, node) || server(walk, node) || elsewhere(walk, node)
}

/// Relations, and what belongs to one.
fn relations<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::AlterTableStmt(alter) => {
            walk.effects(&[Alter]);
            let commands = alter.cmds.iter().filter_map(node_of).filter_map(|command| match command {
                N::AlterTableCmd(command) => Some(command),
                _ => None,
            });
            commands.for_each(|command| relabels(walk, alter, command));
            write_and_descend(walk, node, None, alter.relation.as_ref(), kind_of(alter.objtype()));
        }
        N::AlterTableCmd(command) => alter_table(walk, node, command),
        N::PartitionCmd(command) => write_and_descend(walk, node, None, command.name.as_ref(), ObjectKind::Table),
        N::AlterSeqStmt(alter) => {
            walk.effects(&[Alter]);
            write_and_descend(walk, node, None, alter.sequence.as_ref(), ObjectKind::Sequence);
        }
        N::AlterPolicyStmt(alter) => {
            walk.effects(&[Alter, Grant]);
            walk.relabel(alter.table.as_ref(), None);
            write_and_descend(walk, node, None, alter.table.as_ref(), ObjectKind::Table);
        }
        _ => return false,
    }
    true
}

/// What takes a table or column from the rules that name it or its parent.
fn relabels(walk: &mut Walk<'_>, alter: &AlterTableStmt, command: &AlterTableCmd) {
    match command.subtype() {
        // A new parent shows its children's rows under a name that no rule may know.
        AlterTableType::AtAddInherit | AlterTableType::AtDropInherit => walk.relabel(alter.relation.as_ref(), None),
        AlterTableType::AtAttachPartition | AlterTableType::AtDetachPartition | AlterTableType::AtDetachPartitionFinalize => {
            if let Some(N::PartitionCmd(partition)) = command.def.as_deref().and_then(node_of) {
                walk.relabel(partition.name.as_ref(), None);
            }
        }
        _ => {}
    }
}

fn alter_table<'a>(walk: &mut Walk<'a>, node: N<'a>, command: &'a AlterTableCmd) {
    if let Some(definition) = command.def.as_deref().and_then(node_of) {
        match (command.subtype(), definition) {
            // A column that is made from itself stays under its own mask.
            (AlterTableType::AtAlterColumnType, N::ColumnDef(column)) => {
                let value = column.raw_default.as_deref().and_then(node_of);
                value.into_iter().for_each(|value| walk.store_in(&command.name, value));
            }
            (AlterTableType::AtColumnDefault | AlterTableType::AtSetExpression, value) => walk.store_in(&command.name, value),
            _ => {}
        }
    }
    match command.subtype() {
        // The column's data are gone, as with DROP TABLE.
        AlterTableType::AtDropColumn => walk.effects(&[Drop]),
        AlterTableType::AtChangeOwner
        | AlterTableType::AtEnableRowSecurity
        | AlterTableType::AtDisableRowSecurity
        | AlterTableType::AtForceRowSecurity
        | AlterTableType::AtNoForceRowSecurity => walk.effects(&[Grant]),
        _ => {}
    }
    walk.descend(node);
}

/// What can be done to an object of any kind.
fn objects<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::RenameStmt(rename) => {
            let kind = kind_of(rename.rename_type());
            walk.effects(&[Alter]);
            match rename.rename_type() {
                ObjectType::ObjectSchema => walk.relabel_schema(&rename.subname),
                ObjectType::ObjectColumn | ObjectType::ObjectAttribute => {
                    walk.relabel(rename.relation.as_ref(), Some(&rename.subname));
                }
                ObjectType::ObjectTable
                | ObjectType::ObjectView
                | ObjectType::ObjectMatview
                | ObjectType::ObjectForeignTable
                | ObjectType::ObjectIndex
                | ObjectType::ObjectSequence => walk.relabel(rename.relation.as_ref(), None),
                _ => {}
            }
            match (&rename.relation, rename.object.as_deref()) {
                (Some(_), _) if kind == ObjectKind::Other => {
                    walk.object(kind, None, &rename.subname, true);
                    write_all_and_descend(walk, node, kind_of(rename.relation_type()));
                }
                (Some(_), _) => write_all_and_descend(walk, node, kind),
                (None, Some(object)) => target(walk, rename.rename_type(), object),
                (None, None) => walk.object(kind, None, &rename.subname, true),
            }
        }
        N::AlterOwnerStmt(alter) => {
            walk.effects(&[Alter, Grant]);
            alter.object.iter().for_each(|object| target(walk, alter.object_type(), object));
            write_relation(walk, alter.relation.as_ref(), kind_of(alter.object_type()));
        }
        N::AlterObjectSchemaStmt(alter) => {
            walk.effects(&[Alter]);
            walk.relabel(alter.relation.as_ref(), None);
            alter.object.iter().for_each(|object| target(walk, alter.object_type(), object));
            write_relation(walk, alter.relation.as_ref(), kind_of(alter.object_type()));
        }
        N::AlterObjectDependsStmt(alter) => {
            walk.effects(&[Alter]);
            alter.object.iter().for_each(|object| target(walk, alter.object_type(), object));
            write_relation(walk, alter.relation.as_ref(), kind_of(alter.object_type()));
        }
        N::CommentStmt(comment) => {
            walk.effects(&[Alter]);
            comment.object.iter().for_each(|object| target(walk, comment.objtype(), object));
        }
        N::SecLabelStmt(label) => {
            walk.effects(&[Alter, Grant]);
            label.object.iter().for_each(|object| target(walk, label.objtype(), object));
        }
        _ => return false,
    }
    true
}

/// What is a name in a schema, with nothing more to say.
fn names<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::AlterDomainStmt(alter) => names_and_descend(walk, node, &[Alter], ObjectKind::Type, &alter.type_name),
        N::AlterTypeStmt(alter) => names_and_descend(walk, node, &[Alter], ObjectKind::Type, &alter.type_name),
        N::AlterEnumStmt(alter) => names_and_descend(walk, node, &[Alter], ObjectKind::Type, &alter.type_name),
        N::AlterCollationStmt(alter) => names_and_descend(walk, node, &[Alter], ObjectKind::Other, &alter.collname),
        N::AlterStatsStmt(alter) => names_and_descend(walk, node, &[Alter], ObjectKind::Other, &alter.defnames),
        N::AlterOpFamilyStmt(alter) => names_and_descend(walk, node, &[Alter], ObjectKind::Other, &alter.opfamilyname),
        N::AlterTsdictionaryStmt(alter) => names_and_descend(walk, node, &[Alter], ObjectKind::Other, &alter.dictname),
        N::AlterTsconfigurationStmt(alter) => names_and_descend(walk, node, &[Alter], ObjectKind::Other, &alter.cfgname),
        N::AlterOperatorStmt(_) => name_and_descend(walk, node, &[Alter], ObjectKind::Other, ""),
        N::AlterFunctionStmt(alter) => {
            walk.effects(&[Alter]);
            alter.func.iter().for_each(|function| named(walk, ObjectKind::Function, &function.objname));
            walk.descend(node);
        }
        _ => return false,
    }
    true
}

/// What changes the server: its code, its files, its databases, who may log in.
fn server<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::AlterExtensionStmt(alter) => name_and_descend(walk, node, &[Alter, Admin], ObjectKind::Other, &alter.extname),
        N::AlterExtensionContentsStmt(alter) => {
            walk.effects(&[Alter, Admin]);
            walk.object(ObjectKind::Other, None, &alter.extname, true);
        }
        N::AlterEventTrigStmt(alter) => name_and_descend(walk, node, &[Alter, Admin], ObjectKind::Other, &alter.trigname),
        N::AlterTableSpaceOptionsStmt(alter) => {
            name_and_descend(walk, node, &[Alter, Admin], ObjectKind::Other, &alter.tablespacename);
        }
        N::AlterTableMoveAllStmt(alter) => {
            name_and_descend(walk, node, &[Alter, Admin], ObjectKind::Other, &alter.orig_tablespacename);
        }
        N::AlterDatabaseStmt(alter) => name_and_descend(walk, node, &[Alter], ObjectKind::Database, &alter.dbname),
        N::AlterDatabaseSetStmt(alter) => name_and_descend(walk, node, &[Alter], ObjectKind::Database, &alter.dbname),
        N::AlterDatabaseRefreshCollStmt(alter) => name_and_descend(walk, node, &[Alter], ObjectKind::Database, &alter.dbname),
        N::AlterRoleStmt(alter) => {
            passwords(walk, &alter.options);
            walk.effects(&[Alter, Admin]);
            alter.role.iter().for_each(|role| walk.object(ObjectKind::Role, None, &role.rolename, true));
        }
        N::AlterRoleSetStmt(alter) => {
            walk.effects(&[Alter, Admin]);
            alter.role.iter().for_each(|role| walk.object(ObjectKind::Role, None, &role.rolename, true));
            walk.descend(node);
        }
        _ => return false,
    }
    true
}

/// What makes the server speak with others.
fn elsewhere<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::AlterFdwStmt(alter) => {
            passwords(walk, &alter.options);
            name_and_descend(walk, node, &[Alter, Network], ObjectKind::Other, &alter.fdwname);
        }
        N::AlterForeignServerStmt(alter) => {
            passwords(walk, &alter.options);
            name_and_descend(walk, node, &[Alter, Network], ObjectKind::Other, &alter.servername);
        }
        N::AlterUserMappingStmt(alter) => {
            passwords(walk, &alter.options);
            name_and_descend(walk, node, &[Alter, Network], ObjectKind::Other, &alter.servername);
        }
        N::AlterPublicationStmt(alter) => {
            name_and_descend(walk, node, &[Alter, Replication], ObjectKind::Other, &alter.pubname);
        }
        N::AlterSubscriptionStmt(alter) => {
            walk.secret(SecretLiteral::All);
            name_and_descend(walk, node, &[Alter, Replication, Network], ObjectKind::Other, &alter.subname);
        }
        _ => return false,
    }
    true
}
