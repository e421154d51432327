//! What each kind of statement does: its command tag and its effects.
//!
//! Both are closed lists. A statement without a tag is unreadable.

use pg_query::{
    NodeRef as N,
    protobuf::{
        AlterTableCmd, AlterTableType, CmdType, CopyStmt, CreateFunctionStmt, DefElem, ExplainStmt, GrantStmt, InsertStmt,
        MergeStmt, Node, ObjectType, OnConflictAction, RangeVar, SetOperation, TransactionStmt, TransactionStmtKind,
        VariableSetKind, VariableSetStmt,
    },
};

use super::{
    TransactionVerb, Verb,
    redact::SecretLiteral,
    settings,
    walk::{Walk, literal, node_of, strings},
};
use crate::flow::{
    Effect::{
        self, Admin, Alter, Create, Delete, Drop, ExecCode, FileRead, FileWrite, Grant, Insert, Network, Notify, Program, Read,
        Replication, Truncate, Update,
    },
    ObjectKind,
};

/// The verb of a statement that is not in the list.
pub(super) const UNKNOWN: Verb = Verb { tag: "UNKNOWN", copy_out: false, copy_in: false, transaction: None };

/// What a statement is; `UNKNOWN` for what is no statement of PostgreSQL 17.
pub(super) fn verb(node: N<'_>) -> Verb {
    let plain = |tag| Verb { tag, ..UNKNOWN };
    match node {
        N::CopyStmt(copy) => {
            let with_client = copy.filename.is_empty() && !copy.is_program;
            Verb { tag: "COPY", copy_in: with_client && copy.is_from, copy_out: with_client && !copy.is_from, transaction: None }
        }
        N::TransactionStmt(statement) => transaction(statement),
        node => plain(tag(node).unwrap_or(UNKNOWN.tag)),
    }
}

fn transaction(statement: &TransactionStmt) -> Verb {
    let (tag, verb) = match statement.kind() {
        TransactionStmtKind::TransStmtBegin => ("BEGIN", TransactionVerb::Begin),
        TransactionStmtKind::TransStmtStart => ("START TRANSACTION", TransactionVerb::Begin),
        TransactionStmtKind::TransStmtCommit => ("COMMIT", TransactionVerb::Commit),
        TransactionStmtKind::TransStmtRollback => ("ROLLBACK", TransactionVerb::Rollback),
        TransactionStmtKind::TransStmtSavepoint => ("SAVEPOINT", TransactionVerb::Savepoint),
        TransactionStmtKind::TransStmtRelease => ("RELEASE", TransactionVerb::Release),
        TransactionStmtKind::TransStmtRollbackTo => ("ROLLBACK", TransactionVerb::RollbackTo),
        TransactionStmtKind::TransStmtPrepare => ("PREPARE TRANSACTION", TransactionVerb::Prepare),
        TransactionStmtKind::TransStmtCommitPrepared => ("COMMIT PREPARED", TransactionVerb::CommitPrepared),
        TransactionStmtKind::TransStmtRollbackPrepared => ("ROLLBACK PREPARED", TransactionVerb::RollbackPrepared),
        TransactionStmtKind::Undefined => return UNKNOWN,
    };
    Verb { tag, transaction: Some(verb), ..UNKNOWN }
}

fn tag(node: N<'_>) -> Option<&'static str> {
    Some(match node {
        N::SelectStmt(select) if select.into_clause.is_some() => "SELECT INTO",
        N::SelectStmt(_) => "SELECT",
        N::InsertStmt(_) => "INSERT",
        N::UpdateStmt(_) => "UPDATE",
        N::DeleteStmt(_) => "DELETE",
        N::MergeStmt(_) => "MERGE",
        N::TruncateStmt(_) => "TRUNCATE TABLE",
        N::DropStmt(_)
        | N::DropdbStmt(_)
        | N::DropRoleStmt(_)
        | N::DropTableSpaceStmt(_)
        | N::DropUserMappingStmt(_)
        | N::DropSubscriptionStmt(_)
        | N::DropOwnedStmt(_) => "DROP",
        N::CreateStmt(_) | N::CreateForeignTableStmt(_) => "CREATE TABLE",
        N::CreateTableAsStmt(_) => "CREATE TABLE AS",
        N::ViewStmt(_) => "CREATE VIEW",
        N::IndexStmt(_) => "CREATE INDEX",
        N::CreateSchemaStmt(_) => "CREATE SCHEMA",
        N::CreateFunctionStmt(_) => "CREATE FUNCTION",
        N::CreateSeqStmt(_)
        | N::CreatedbStmt(_)
        | N::CreateRoleStmt(_)
        | N::CreateTableSpaceStmt(_)
        | N::CreateTrigStmt(_)
        | N::CreateEventTrigStmt(_)
        | N::CreatePlangStmt(_)
        | N::CreateDomainStmt(_)
        | N::CreateEnumStmt(_)
        | N::CreateRangeStmt(_)
        | N::CompositeTypeStmt(_)
        | N::CreateConversionStmt(_)
        | N::CreateCastStmt(_)
        | N::CreateTransformStmt(_)
        | N::CreateOpClassStmt(_)
        | N::CreateOpFamilyStmt(_)
        | N::CreateFdwStmt(_)
        | N::CreateForeignServerStmt(_)
        | N::CreateUserMappingStmt(_)
        | N::CreateExtensionStmt(_)
        | N::CreateAmStmt(_)
        | N::CreatePolicyStmt(_)
        | N::CreatePublicationStmt(_)
        | N::CreateSubscriptionStmt(_)
        | N::CreateStatsStmt(_)
        | N::DefineStmt(_)
        | N::RuleStmt(_) => "CREATE",
        N::ImportForeignSchemaStmt(_) => "IMPORT FOREIGN SCHEMA",
        N::AlterTableStmt(_) => "ALTER TABLE",
        N::RenameStmt(_)
        | N::AlterDomainStmt(_)
        | N::AlterSeqStmt(_)
        | N::AlterFunctionStmt(_)
        | N::AlterOwnerStmt(_)
        | N::AlterObjectSchemaStmt(_)
        | N::AlterObjectDependsStmt(_)
        | N::AlterOperatorStmt(_)
        | N::AlterTypeStmt(_)
        | N::AlterEnumStmt(_)
        | N::AlterOpFamilyStmt(_)
        | N::AlterTsdictionaryStmt(_)
        | N::AlterTsconfigurationStmt(_)
        | N::AlterFdwStmt(_)
        | N::AlterForeignServerStmt(_)
        | N::AlterUserMappingStmt(_)
        | N::AlterTableSpaceOptionsStmt(_)
        | N::AlterTableMoveAllStmt(_)
        | N::AlterExtensionStmt(_)
        | N::AlterExtensionContentsStmt(_)
        | N::AlterEventTrigStmt(_)
        | N::AlterPolicyStmt(_)
        | N::AlterPublicationStmt(_)
        | N::AlterSubscriptionStmt(_)
        | N::AlterCollationStmt(_)
        | N::AlterStatsStmt(_)
        | N::AlterDatabaseStmt(_)
        | N::AlterDatabaseSetStmt(_)
        | N::AlterDatabaseRefreshCollStmt(_)
        | N::AlterRoleStmt(_)
        | N::AlterRoleSetStmt(_)
        | N::AlterDefaultPrivilegesStmt(_) => "ALTER",
        N::AlterSystemStmt(_) => "ALTER SYSTEM",
        N::CommentStmt(_) => "COMMENT",
        N::SecLabelStmt(_) => "SECURITY LABEL",
        N::GrantStmt(grant) => grant_tag(grant.is_grant),
        N::GrantRoleStmt(grant) => grant_tag(grant.is_grant),
        N::ReassignOwnedStmt(_) => "REASSIGN OWNED",
        N::DoStmt(_) => "DO",
        N::CallStmt(_) => "CALL",
        N::PrepareStmt(_) => "PREPARE",
        N::ExecuteStmt(_) => "EXECUTE",
        N::DeallocateStmt(_) => "DEALLOCATE",
        N::DeclareCursorStmt(_) => "DECLARE CURSOR",
        N::FetchStmt(fetch) if fetch.ismove => "MOVE",
        N::FetchStmt(_) => "FETCH",
        N::ClosePortalStmt(_) => "CLOSE CURSOR",
        N::ExplainStmt(_) => "EXPLAIN",
        N::VariableSetStmt(set) => match set.kind() {
            VariableSetKind::VarReset | VariableSetKind::VarResetAll => "RESET",
            _ => "SET",
        },
        N::VariableShowStmt(_) => "SHOW",
        N::ConstraintsSetStmt(_) => "SET CONSTRAINTS",
        N::DiscardStmt(_) => "DISCARD",
        N::ListenStmt(_) => "LISTEN",
        N::UnlistenStmt(_) => "UNLISTEN",
        N::NotifyStmt(_) => "NOTIFY",
        N::LockStmt(_) => "LOCK TABLE",
        N::LoadStmt(_) => "LOAD",
        N::VacuumStmt(vacuum) if !vacuum.is_vacuumcmd => "ANALYZE",
        N::VacuumStmt(_) => "VACUUM",
        N::ClusterStmt(_) => "CLUSTER",
        N::ReindexStmt(_) => "REINDEX",
        N::RefreshMatViewStmt(_) => "REFRESH MATERIALIZED VIEW",
        N::CheckPointStmt(_) => "CHECKPOINT",
        _ => return None,
    })
}

fn grant_tag(is_grant: bool) -> &'static str {
    if is_grant { "GRANT" } else { "REVOKE" }
}

/// Adds the effects and objects of a statement, and of the parts of statements that have some; queues what is below it. False: the
/// node is an expression or another part without effects of its own.
pub(super) fn judge<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    data(walk, node)
        || code(walk, node)
        || session(walk, node)
        || define(walk, node)
        || change(walk, node)
        || administer(walk, node)
}

/// Queries, rows in and out.
fn data<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::SelectStmt(select) => {
            if select.op() != SetOperation::SetopNone {
                walk.set_operation();
            }
            if select.into_clause.is_some() {
                walk.store(node);
            }
            // Names in FOR UPDATE OF are aliases, not relations.
            walk.descend_except(node, select.with_clause.as_ref(), |below| matches!(below, N::LockingClause(_)));
        }
        N::InsertStmt(insert) => self::insert(walk, node, insert),
        N::UpdateStmt(update) => {
            walk.effects(&[Update]);
            walk.condition(update.where_clause.as_deref());
            update.target_list.iter().filter_map(node_of).for_each(|assignment| walk.store(assignment));
            write_and_descend(walk, node, update.with_clause.as_ref(), update.relation.as_ref(), ObjectKind::Table);
        }
        N::DeleteStmt(delete) => {
            walk.effects(&[Delete]);
            walk.condition(delete.where_clause.as_deref());
            write_and_descend(walk, node, delete.with_clause.as_ref(), delete.relation.as_ref(), ObjectKind::Table);
        }
        N::MergeStmt(merge) => self::merge(walk, node, merge),
        N::CopyStmt(copy) => self::copy(walk, node, copy),
        N::TruncateStmt(_) => {
            walk.effects(&[Truncate]);
            write_all_and_descend(walk, node, ObjectKind::Table);
        }
        N::IntoClause(into) => {
            walk.effects(&[Create, Insert]);
            write_and_descend(walk, node, None, into.rel.as_ref(), ObjectKind::Table);
        }
        N::CreateTableAsStmt(create) => {
            walk.effects(&[Create]);
            if let Some(query) = create.query.as_deref().and_then(node_of) {
                walk.store(query);
            }
            walk.descend(node);
        }
        N::RefreshMatViewStmt(_) => {
            walk.effects(&[Read, Update]);
            write_all_and_descend(walk, node, ObjectKind::View);
        }
        // PREPARE, DECLARE and EXPLAIN ANALYZE do what the statement in them does.
        N::PrepareStmt(_) | N::DeclareCursorStmt(_) | N::ExplainStmt(_) => walk.descend(node),
        _ => return false,
    }
    true
}

fn insert<'a>(walk: &mut Walk<'a>, node: N<'a>, insert: &'a InsertStmt) {
    walk.effects(&[Insert]);
    if insert.on_conflict_clause.as_ref().is_some_and(|clause| clause.action() == OnConflictAction::OnconflictUpdate) {
        walk.effects(&[Update]);
    }
    if let Some(source) = insert.select_stmt.as_deref().and_then(node_of) {
        walk.store(source);
    }
    write_and_descend(walk, node, insert.with_clause.as_ref(), insert.relation.as_ref(), ObjectKind::Table);
}

fn merge<'a>(walk: &mut Walk<'a>, node: N<'a>, merge: &'a MergeStmt) {
    for clause in merge.merge_when_clauses.iter().filter_map(node_of) {
        let N::MergeWhenClause(clause) = clause else { continue };
        match clause.command_type() {
            CmdType::CmdInsert => walk.effects(&[Insert]),
            CmdType::CmdUpdate => walk.effects(&[Update]),
            CmdType::CmdDelete => walk.effects(&[Delete]),
            CmdType::CmdNothing => {}
            _ => walk.unreadable("an action of MERGE that is not known"),
        }
        clause.target_list.iter().chain(&clause.values).filter_map(node_of).for_each(|value| walk.store(value));
    }
    // The source's columns come in under its alias: what is stored may be any of them.
    if let Some(source) = merge.source_relation.as_deref().and_then(node_of) {
        walk.store(source);
    }
    write_and_descend(walk, node, merge.with_clause.as_ref(), merge.relation.as_ref(), ObjectKind::Table);
}

fn copy<'a>(walk: &mut Walk<'a>, node: N<'a>, copy: &'a CopyStmt) {
    let outside = match (copy.is_program, copy.filename.is_empty(), copy.is_from) {
        (true, ..) => Some(Program),
        (false, true, _) => None,
        (false, false, true) => Some(FileRead),
        (false, false, false) => Some(FileWrite),
    };
    walk.effects(outside.as_slice());
    if outside.is_some() && !copy.is_from {
        walk.store(node);
        if copy.relation.is_some() {
            walk.store_whole_rows();
        }
    }
    if copy.is_from {
        walk.effects(&[Insert]);
        write_and_descend(walk, node, None, copy.relation.as_ref(), ObjectKind::Table);
    } else {
        walk.descend(node);
    }
}

/// Code that runs without being seen.
fn code<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::DoStmt(_) => {
            walk.effects(&[ExecCode]);
            walk.unreadable("code in a DO block cannot be judged");
        }
        N::CallStmt(_) => {
            walk.effects(&[ExecCode]);
            walk.unreadable("the code of a procedure cannot be judged");
            walk.descend(node);
        }
        N::ExecuteStmt(_) => {
            walk.effects(&[ExecCode]);
            walk.opaque();
            walk.descend(node);
        }
        N::FetchStmt(_) => {
            walk.effects(&[Read]);
            walk.opaque();
        }
        N::CreateFunctionStmt(function) => create_function(walk, node, function),
        _ => return false,
    }
    true
}

fn create_function<'a>(walk: &mut Walk<'a>, node: N<'a>, function: &'a CreateFunctionStmt) {
    walk.effects(&[Create]);
    named(walk, ObjectKind::Function, &function.funcname);
    for option in definitions(&function.options).filter(|option| option.defname == "language") {
        // A function in machine code is whatever its library says; an internal one is a built-in under another name.
        if option.arg.as_deref().and_then(node_of).is_some_and(|language| is_string(language, &["c", "internal"])) {
            walk.effects(&[Admin, ExecCode]);
            walk.unreadable("a function in machine code cannot be judged");
        }
    }
    // Settings in the options hold while the function runs, not for the session.
    walk.descend_except(node, None, |below| matches!(below, N::DefElem(option) if option.defname == "set"));
}

/// Session state, transactions, notifications.
fn session<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::VariableSetStmt(set) => self::set(walk, set),
        N::VariableShowStmt(show) => {
            if show.name.contains('.') {
                walk.opaque();
            }
        }
        N::NotifyStmt(_) | N::ListenStmt(_) | N::UnlistenStmt(_) => walk.effects(&[Notify]),
        N::LockStmt(_) => walk.descend(node),
        N::TransactionStmt(_) | N::DeallocateStmt(_) | N::ClosePortalStmt(_) | N::ConstraintsSetStmt(_) | N::DiscardStmt(_) => {}
        _ => return false,
    }
    true
}

fn set(walk: &mut Walk<'_>, set: &VariableSetStmt) {
    walk.effects(settings::effect_of(&set.name).as_slice());
}

/// CREATE in all its forms.
fn define<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
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
        N::CreateSchemaStmt(create) => name_and_descend(walk, node, &[Create], ObjectKind::Schema, &create.schemaname),
        N::CreatedbStmt(create) => name_and_descend(walk, node, &[Create], ObjectKind::Database, &create.dbname),
        N::CreateTrigStmt(create) => {
            named(walk, ObjectKind::Function, &create.funcname);
            walk.effects(&[Create]);
            walk.object(ObjectKind::Other, None, &create.trigname, true);
            write_all_and_descend(walk, node, ObjectKind::Table);
        }
        N::RuleStmt(rule) => {
            // Its actions run whenever the rule fires: they are judged here, as if they ran now.
            walk.effects(&[Create]);
            walk.object(ObjectKind::Other, None, &rule.rulename, true);
            write_and_descend(walk, node, None, rule.relation.as_ref(), ObjectKind::Table);
        }
        N::CreatePolicyStmt(policy) => {
            walk.effects(&[Create, Grant]);
            walk.object(ObjectKind::Other, None, &policy.policy_name, true);
            write_and_descend(walk, node, None, policy.table.as_ref(), ObjectKind::Table);
        }
        N::CreateDomainStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Type, &create.domainname),
        N::CreateEnumStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Type, &create.type_name),
        N::CreateRangeStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Type, &create.type_name),
        N::DefineStmt(define) => names_and_descend(walk, node, &[Create], kind_of(define.kind()), &define.defnames),
        N::CreateOpClassStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Other, &create.opclassname),
        N::CreateOpFamilyStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Other, &create.opfamilyname),
        N::CreateConversionStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Other, &create.conversion_name),
        N::CreateStatsStmt(create) => names_and_descend(walk, node, &[Create], ObjectKind::Other, &create.defnames),
        N::CreateCastStmt(_) | N::CreateTransformStmt(_) => name_and_descend(walk, node, &[Create], ObjectKind::Other, ""),
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

/// ALTER and DROP in all their forms, grants.
fn change<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
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
        N::AlterTableStmt(alter) => {
            walk.effects(&[Alter]);
            write_and_descend(walk, node, None, alter.relation.as_ref(), kind_of(alter.objtype()));
        }
        N::AlterTableCmd(command) => alter_table(walk, node, command),
        N::PartitionCmd(command) => write_and_descend(walk, node, None, command.name.as_ref(), ObjectKind::Table),
        N::RenameStmt(rename) => {
            let kind = kind_of(rename.rename_type());
            walk.effects(&[Alter]);
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
        N::AlterSeqStmt(alter) => {
            walk.effects(&[Alter]);
            write_and_descend(walk, node, None, alter.sequence.as_ref(), ObjectKind::Sequence);
        }
        N::AlterPolicyStmt(alter) => {
            walk.effects(&[Alter, Grant]);
            write_and_descend(walk, node, None, alter.table.as_ref(), ObjectKind::Table);
        }
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
        }
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
        N::AlterPublicationStmt(alter) => {
            name_and_descend(walk, node, &[Alter, Replication], ObjectKind::Other, &alter.pubname);
        }
        N::AlterSubscriptionStmt(alter) => {
            walk.secret(SecretLiteral::All);
            name_and_descend(walk, node, &[Alter, Replication, Network], ObjectKind::Other, &alter.subname);
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

fn alter_table<'a>(walk: &mut Walk<'a>, node: N<'a>, command: &'a AlterTableCmd) {
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

fn grant<'a>(walk: &mut Walk<'a>, grant: &'a GrantStmt) {
    walk.effects(&[Grant]);
    grant.objects.iter().for_each(|object| target(walk, grant.objtype(), object));
    roles(walk, &grant.grantees);
}

/// Upkeep of the server and its files.
fn administer<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
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
        N::LoadStmt(_) => {
            walk.effects(&[Admin, ExecCode]);
            walk.unreadable("a library in machine code cannot be judged");
        }
        _ => return false,
    }
    true
}

/// True if EXPLAIN runs the statement: any ANALYZE that is not plainly switched off.
pub(super) fn executes(explain: &ExplainStmt) -> bool {
    let is_off =
        |value: N<'_>| is_string(value, &["off", "false", "no", "0"]) || matches!(value, N::Integer(number) if number.ival == 0);
    definitions(&explain.options)
        .filter(|option| option.defname.eq_ignore_ascii_case("analyze"))
        .any(|option| !option.arg.as_deref().and_then(node_of).is_some_and(is_off))
}

fn write_relation<'a>(walk: &mut Walk<'a>, relation: Option<&'a RangeVar>, kind: ObjectKind) {
    if let Some(relation) = relation {
        walk.relation(relation, kind, true);
    }
}

/// Notes the relation that a statement writes to, then visits everything else below it.
fn write_and_descend<'a>(
    walk: &mut Walk<'a>,
    node: N<'a>,
    with: Option<&'a pg_query::protobuf::WithClause>,
    relation: Option<&'a RangeVar>,
    kind: ObjectKind,
) {
    write_relation(walk, relation, kind);
    let is_target =
        |below: N<'a>| matches!(below, N::RangeVar(var) if relation.is_some_and(|relation| std::ptr::eq(var, relation)));
    walk.descend_except(node, with, is_target);
}

/// As `write_and_descend`, for every relation directly below the statement.
fn write_all_and_descend<'a>(walk: &mut Walk<'a>, node: N<'a>, kind: ObjectKind) {
    let mut below = Vec::new();
    if !super::children::children(node, &mut below) {
        walk.unreadable(super::walk::UNKNOWN_NODE);
    }
    for relation in &below {
        if let N::RangeVar(relation) = relation {
            walk.relation(relation, kind, true);
        }
    }
    walk.descend_except(node, None, |below| matches!(below, N::RangeVar(_)));
}

fn name_and_descend<'a>(walk: &mut Walk<'a>, node: N<'a>, effects: &[Effect], kind: ObjectKind, name: &str) {
    walk.effects(effects);
    if !name.is_empty() {
        walk.object(kind, None, name, true);
    }
    walk.descend(node);
}

fn names_and_descend<'a>(walk: &mut Walk<'a>, node: N<'a>, effects: &[Effect], kind: ObjectKind, names: &'a [Node]) {
    walk.effects(effects);
    named(walk, kind, names);
    walk.descend(node);
}

/// Notes an object that is named by a list of strings: schema and name.
fn named(walk: &mut Walk<'_>, kind: ObjectKind, names: &[Node]) {
    parts(walk, kind, &strings(names));
}

fn parts(walk: &mut Walk<'_>, kind: ObjectKind, parts: &[&str]) {
    if let Some((name, qualifiers)) = parts.split_last() {
        walk.object(kind, qualifiers.last().copied(), name, true);
    }
}

/// Notes the object of DROP, COMMENT, GRANT and the like, in whichever of the grammar's forms it is named.
fn target<'a>(walk: &mut Walk<'a>, object_type: ObjectType, object: &'a Node) {
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

fn roles(walk: &mut Walk<'_>, roles: &[Node]) {
    for role in roles.iter().filter_map(node_of) {
        if let N::RoleSpec(role) = role {
            walk.object(ObjectKind::Role, None, &role.rolename, true);
        }
    }
}

/// Marks the literals of options that hold a secret.
fn passwords(walk: &mut Walk<'_>, options: &[Node]) {
    for option in definitions(options) {
        let name = option.defname.to_ascii_lowercase();
        if ["password", "passwd", "secret", "token", "key", "conninfo"].iter().any(|word| name.contains(word)) {
            walk.secret(SecretLiteral::After(usize::try_from(option.location).unwrap_or(0)));
        }
    }
}

fn definitions(options: &[Node]) -> impl Iterator<Item = &DefElem> {
    options.iter().filter_map(|option| match node_of(option) {
        Some(N::DefElem(option)) => Some(option),
        _ => None,
    })
}

fn is_string(node: N<'_>, values: &[&str]) -> bool {
    let is_value = |string: &str| values.iter().any(|value| string.eq_ignore_ascii_case(value));
    match node {
        N::String(string) => is_value(&string.sval),
        N::AConst(constant) => literal(&Node { node: Some(pg_query::NodeEnum::AConst(constant.clone())) }).is_some_and(is_value),
        _ => false,
    }
}

fn kind_of(object_type: ObjectType) -> ObjectKind {
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
