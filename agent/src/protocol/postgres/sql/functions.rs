//! Built-in and well-known extension functions that do more than compute.
//!
//! Matched by name in any schema: an extension may live anywhere, and a user's function of the same name is only judged too
//! strictly.

use pg_query::protobuf::FuncCall;

use super::nodes::literal;
use crate::flow::{
    Effect::{
        self, Admin, Create, Delete, ExecCode, FileRead, FileWrite, Insert, Network, Notify, Read, Replication, Unreadable,
        Update,
    },
    Effects,
};

/// The effects of calling the function of this (folded) name; empty for all others.
pub(super) fn effects_of(name: &str) -> Effects {
    let exact = EXACT.iter().find(|(names, _)| names.contains(&name)).map(|(_, effects)| *effects);
    let family = || FAMILIES.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, effects)| *effects);
    exact.or_else(family).map(Effects::of).unwrap_or_default()
}

/// True for functions whose results hold what sessions wrote or ran before.
pub(super) fn is_opaque(name: &str, call: &FuncCall) -> bool {
    match name {
        "current_setting" => call.args.first().and_then(literal).is_none_or(|name| name.contains('.')),
        "pg_stat_get_activity" | "pg_stat_get_backend_activity" | "pg_stat_statements" => true,
        _ => false,
    }
}

/// True for functions whose arguments others can see afterwards, besides those with effects.
pub(super) fn keeps_arguments(name: &str) -> bool {
    name == "set_config" || name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_") || name.starts_with("lo_")
}

type Row<Names> = (Names, &'static [Effect]);

/// Takes SQL text, or the name of something to read: what it does cannot be seen from here.
const CODE: &[Effect] = &[ExecCode, Unreadable];
const REMOTE_CODE: &[Effect] = &[ExecCode, Unreadable, Network];

const EXACT: &[Row<&[&str]>] = &[
    (&["ts_stat", "ts_rewrite", "xpath_table", "connectby", "cursor_to_xml", "cursor_to_xmlschema"], CODE),
    (&["schedule", "schedule_in_database", "alter_job"], CODE),
    (&["pg_notify"], &[Notify]),
    (&["nextval", "setval"], &[Update]),
    (&["lo_import"], &[FileRead, Insert]),
    (&["lo_export"], &[FileWrite, Read]),
    (&["lo_put", "lo_truncate", "lo_truncate64", "lowrite", "lo_open"], &[Update]),
    (&["lo_unlink"], &[Delete]),
    (&["lo_creat", "lo_create", "lo_from_bytea"], &[Create, Insert]),
    (&["pg_stat_file", "pg_read_file_all", "pg_read_file_old", "pg_logdir_ls", "pg_read_server_file"], &[FileRead]),
    (&["pg_file_write", "pg_file_rename", "pg_file_unlink", "pg_file_sync"], &[FileWrite]),
    (&["pg_export_snapshot"], &[Replication]),
    (
        &[
            "pg_backup_start",
            "pg_backup_stop",
            "pg_cancel_backend",
            "pg_create_restore_point",
            "pg_extension_config_dump",
            "pg_import_system_collations",
            "pg_log_backend_memory_contexts",
            "pg_log_standby_snapshot",
            "pg_promote",
            "pg_reload_conf",
            "pg_rotate_logfile",
            "pg_rotate_logfile_old",
            "pg_start_backup",
            "pg_stop_backup",
            "pg_switch_wal",
            "pg_switch_xlog",
            "pg_terminate_backend",
            "pg_wal_replay_pause",
            "pg_wal_replay_resume",
        ],
        &[Admin],
    ),
    (&["http", "http_get", "http_post", "http_put", "http_patch", "http_delete", "http_head"], &[Network]),
];

/// Looked at in order; the first prefix wins.
const FAMILIES: &[Row<&str>] = &[
    ("crosstab", CODE),
    ("query_to_xml", CODE),
    ("table_to_xml", CODE),
    ("schema_to_xml", CODE),
    ("database_to_xml", CODE),
    ("dblink", REMOTE_CODE),
    ("pg_background_", CODE),
    ("query_export_", CODE),
    ("postgres_fdw_", &[Network]),
    ("pg_read_file", &[FileRead]),
    ("pg_read_binary_file", &[FileRead]),
    ("pg_ls_", &[FileRead]),
    ("pg_stat_reset", &[Admin]),
    ("pg_logical_", &[Replication]),
    ("pg_create_logical_replication_slot", &[Replication]),
    ("pg_create_physical_replication_slot", &[Replication]),
    ("pg_copy_logical_replication_slot", &[Replication]),
    ("pg_copy_physical_replication_slot", &[Replication]),
    ("pg_drop_replication_slot", &[Replication]),
    ("pg_replication_", &[Replication]),
    ("pg_sync_replication_slots", &[Replication]),
];
