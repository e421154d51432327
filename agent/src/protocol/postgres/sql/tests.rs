use Effect::{
    Admin, Alter, Create, Delete, Drop, ExecCode, FileRead, FileWrite, Grant, Insert, Network, Notify, Program, Read,
    Replication, SessionLex, SessionRole, Truncate, Unreadable, Update,
};

use super::*;
use crate::flow::{Object, ObjectKind};

fn effects(sql: &str) -> Vec<Effect> {
    read(sql.as_bytes()).statement.effects.iter().collect()
}

macro_rules! effects_of {
    ($($name:ident: $sql:expr => [$($effect:expr),*];)+) => {
        $(#[test]
        fn $name() {
            let mut expected: Vec<Effect> = vec![$($effect),*];
            expected.sort();
            assert_eq!(effects($sql), expected, "{}", $sql);
        })+
    };
}

// The rows of the corpus (`reference/masking.md`, 3.2) that are decided by reading.
effects_of! {
    pg01_drop_database: "DROP DATABASE x" => [Drop];
    pg01_drop_table: "drop table t.victim" => [Drop];
    pg02_case_and_whitespace: "dRoP\t\r\x0c\ntable x" => [Drop];
    pg04_comment_between_words: "drop/**/table x" => [Drop];
    pg04_comment_before: "/* a */drop table x" => [Drop];
    pg05_nested_comment: "/* /* */ select 1; */ drop table x" => [Drop];
    pg07_carriage_return_ends_comment: "-- x\rdrop table x" => [Drop];
    pg08_empty_statements_before: ";;; ;drop table x" => [Drop];
    pg10_escape_string: r"UPDATE a SET n=E'O\'B'; DROP TABLE x" => [Drop, Update];
    pg11_lexing_setting: "set standard_conforming_strings = off" => [SessionLex];
    pg11_lexing_setting_reset: "reset standard_conforming_strings" => [SessionLex];
    pg11_lexing_setting_local: "set local backslash_quote to on" => [SessionLex];
    pg13_set_config: "select set_config('Standard_Conforming_Strings', 'off', false)" => [Read, SessionLex];
    pg13_set_config_computed: "select set_config('standard_' || 'conforming_strings', 'off', false)" => [Read, SessionLex];
    pg14_update_pg_settings: "update pg_settings set setting = 'off' where name = 'x'" => [SessionLex, Update];
    pg14_update_pg_settings_qualified: "update pg_catalog.pg_settings set setting = 'off' where name = 'x'" => [SessionLex, Update];
    pg17_set_names: "set names 'SJIS'" => [SessionLex];
    pg17_client_encoding: "SET client_encoding='SJIS'" => [SessionLex];
    pg19_unicode_identifier: r#"drop table U&"\0076ictim""# => [Drop];
    pg20_unicode_identifier_with_escape: r#"drop table U&"d!0076" UESCAPE '!'"# => [Drop];
    pg22_do_with_unicode_string: "do U&'begin drop table x; end'" => [ExecCode, Unreadable];
    pg23_do_with_dynamic_sql: "do $$begin execute 'drop'||' table x'; end$$" => [ExecCode, Unreadable];
    pg37_query_to_xml: "select query_to_xml('select t.dr()', true, false, '')" => [ExecCode, Read, Unreadable];
    pg38_ts_stat: "select * from ts_stat('select t.dr()::text::tsvector')" => [ExecCode, Read, Unreadable];
    pg40_dblink: "select ext.dblink_exec('dbname=x', 'drop table x')" => [ExecCode, Network, Read, Unreadable];
    pg43_copy_to_program: "COPY (select 1) TO PROGRAM 'sh'" => [Program];
    pg43_copy_from_program: "COPY t FROM PROGRAM 'sh'" => [Insert, Program];
    pg44_copy_to_file: "COPY t TO '/file'" => [FileWrite, Read];
    pg44_copy_from_file: "COPY t FROM '/file'" => [FileRead, Insert];
    pg44_read_file: "select pg_read_file('/etc/passwd')" => [FileRead, Read];
    pg44_read_file_elsewhere: "select 1 from t where x = PG_CATALOG.pg_read_binary_file('x')" => [FileRead, Read];
    pg44_ls_dir: "select * from pg_ls_dir('.')" => [FileRead, Read];
    pg44_lo_import: "select lo_import('/etc/passwd')" => [FileRead, Insert, Read];
    pg44_lo_export: "select lo_export(1, '/tmp/x')" => [FileWrite, Read];
    pg49_create_table_as_execute: "CREATE TABLE c AS EXECUTE z" => [Create, ExecCode, Insert];
    pg50_explain_analyze: "EXPLAIN ANALYZE DELETE FROM t" => [Delete];
    pg50_explain_analyze_in_parentheses: "EXPLAIN (COSTS OFF, ANALYZE) DELETE FROM t" => [Delete];
    pg50_explain_analyze_overridden: "EXPLAIN (ANALYZE, ANALYZE OFF) DELETE FROM t" => [Delete];
    pg50_explain_without_analyze: "EXPLAIN DELETE FROM t" => [Read];
    pg50_explain_analyze_off: "EXPLAIN (ANALYZE false) DELETE FROM t" => [Read];
    pg52_data_modifying_expression: "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d" => [Delete];
    pg53_merge: "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE" => [Delete, Read];
    pg53_merge_all_actions: "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED AND s.b THEN UPDATE SET c = 1 WHEN MATCHED THEN DO NOTHING \
        WHEN NOT MATCHED THEN INSERT VALUES (1)" => [Insert, Read, Update];
    pg55_rename: "ALTER TABLE x RENAME TO y" => [Alter];
    pg55_set_schema: "ALTER TABLE x SET SCHEMA y" => [Alter];
    pg55_detach_partition: "ALTER TABLE x DETACH PARTITION y" => [Alter];
    pg55_rename_database: "ALTER DATABASE x RENAME TO y" => [Alter];
    pg56_truncate: "TRUNCATE a, b CASCADE" => [Truncate];
    pg58_statements_in_create_schema: "CREATE SCHEMA z CREATE TABLE a (i int) CREATE VIEW v AS SELECT 1 FROM q" => [Create, Read];
    pg59_select_into: "SELECT * INTO t2 FROM x" => [Create, Insert, Read];
    pg61_alter_system: "ALTER SYSTEM SET work_mem = '1GB'" => [Admin, Alter];
    pg61_reload_conf: "select pg_reload_conf()" => [Admin, Read];
    pg67_byte_order_mark: "\u{feff}drop table x" => [Unreadable];
    pg71_notify: "NOTIFY c, 'x'" => [Notify];
    pg71_listen: "LISTEN c" => [Notify];
    pg71_pg_notify: "select pg_notify('c', 'x')" => [Notify, Read];
    pg73_literal: "SELECT 'DROP TABLE x' AS msg" => [];
    pg73_comment: "select 1 -- drop table x" => [];
    pg73_alias: "select a AS delete, b as drop from t" => [Read];
    pg73_privilege_name: "select has_table_privilege('t', 'delete') AS delete" => [Read];
    pg74_function_body: "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ begin DROP TABLE x; end $$" => [Create, ExecCode, Unreadable];
}

effects_of! {
    select_constant: "select 1" => [];
    select_table: "select * from t" => [Read];
    table_command: "table t" => [Read];
    values: "values (1), (2)" => [];
    select_for_update: "select * from t as u where a = 1 for update of u" => [Read, Update];
    insert: "insert into t values (1)" => [Insert];
    insert_from_select: "insert into t select * from s" => [Insert, Read];
    upsert: "insert into t values (1) on conflict (a) do update set b = 2" => [Insert, Update];
    insert_or_nothing: "insert into t values (1) on conflict do nothing" => [Insert];
    update: "update t set a = 1 where b = 2" => [Update];
    update_from: "update t set a = 1 from s where t.b = s.b" => [Read, Update];
    delete_using: "delete from t using s where t.b = s.b" => [Delete, Read];
    deep_modifying_expression: "select (with x as (update t set a = 1 returning 1) select 1)" => [Update];
    copy_out: "copy t to stdout" => [Read];
    copy_query_out: "copy (select * from t) to stdout" => [Read];
    copy_in: "copy t from stdin" => [Insert];
    call: "call p(1)" => [ExecCode, Read, Unreadable];
    execute: "execute p(1)" => [ExecCode];
    prepare: "prepare p as delete from t where a = $1" => [Delete];
    declare: "declare c cursor for select * from t" => [Read];
    fetch: "fetch 10 from c" => [Read];
    move_cursor: "move 10 from c" => [Read];
    close: "close c" => [];
    deallocate: "deallocate all" => [];
    begin: "begin isolation level serializable" => [];
    start: "start transaction read only" => [];
    commit: "commit" => [];
    rollback_to: "rollback to savepoint s" => [];
    two_phase: "prepare transaction 'x'" => [Admin];
    commit_prepared: "commit prepared 'x'" => [Admin];
    set: "set statement_timeout = 100" => [];
    set_transaction: "set transaction isolation level serializable" => [];
    set_time_zone: "set time zone 'UTC'" => [];
    set_search_path: "set search_path = a, b" => [SessionLex];
    set_role: "set role admin" => [SessionRole];
    set_session_authorization: "set session authorization 'x'" => [SessionRole];
    reset_role: "reset role" => [SessionRole];
    reset_all: "reset all" => [];
    discard: "discard all" => [];
    show: "show search_path" => [];
    set_constraints: "set constraints all deferred" => [];
    alter_role_lexing: "alter role r set standard_conforming_strings = off" => [Admin, Alter, SessionLex];
    alter_database_lexing: "alter database d set search_path = x" => [Alter, SessionLex];
    alter_system_lexing: "alter system set standard_conforming_strings = off" => [Admin, Alter, SessionLex];
    function_settings: "create function f() returns int language sql set search_path = a as 'select 1'" => [Create, SessionLex];
    function_in_machine_code: "create function f(text) returns text language internal as 'pg_read_file'" => [Admin, Create, ExecCode, Unreadable];
    function_with_visible_body: "create function f() returns void begin atomic delete from t; end" => [Create, Delete];
    operator_over_file_function: "create operator @# (function = pg_read_file, rightarg = text)" => [Create, FileRead];
    cast_over_file_function: "create cast (text as t) with function pg_read_file(text)" => [Create, FileRead];
    create_table: "create table t (a int primary key, b text default now())" => [Create, Read];
    create_table_as: "create table t as select * from s" => [Create, Insert, Read];
    create_materialized_view: "create materialized view v as select * from s" => [Create, Insert, Read];
    create_view: "create or replace view v as select * from t" => [Create, Read];
    create_index: "create index concurrently i on t (lower(a))" => [Create, Read];
    create_sequence: "create sequence s" => [Create];
    create_type: "create type t as (a int)" => [Create];
    create_enum: "create type t as enum ('a')" => [Create];
    create_domain: "create domain d as int check (value > 0)" => [Create];
    create_trigger: "create trigger g before insert on t for each row execute function f()" => [Create];
    create_rule: "create rule r as on update to t do instead delete from t" => [Create, Delete];
    create_policy: "create policy p on t using (true)" => [Create, Grant];
    create_role: "create role r login password 'x'" => [Admin, Create];
    create_user_mapping: "create user mapping for u server s options (password 'x')" => [Create, Network];
    create_server: "create server s foreign data wrapper w options (host 'h')" => [Create, Network];
    create_foreign_table: "create foreign table t (a int) server s" => [Create, Network];
    import_foreign_schema: "import foreign schema a limit to (t) from server s into b" => [Create, Network];
    create_extension: "create extension dblink" => [Admin, Create];
    create_event_trigger: "create event trigger e on ddl_command_start execute function f()" => [Admin, Create];
    create_publication: "create publication p for table t" => [Create, Read, Replication];
    create_subscription: "create subscription s connection 'x' publication p" => [Create, Network, Replication];
    create_database: "create database d" => [Create];
    create_tablespace: "create tablespace t location '/x'" => [Admin, Create];
    create_statistics: "create statistics s on a, b from t" => [Create, Read];
    create_aggregate: "create aggregate a (int) (sfunc = int4pl, stype = int)" => [Create];
    create_language: "create language l" => [Admin, Create];
    create_access_method: "create access method m type index handler h" => [Admin, Create];
    create_conversion: "create conversion c for 'UTF8' to 'LATIN1' from f" => [Create];
    create_transform: "create transform for int language sql (from sql with function f(internal))" => [Create];
    alter_table_add: "alter table t add column a int" => [Alter];
    alter_table_drop_column: "alter table t drop column a" => [Alter, Drop];
    alter_table_owner: "alter table t owner to r" => [Alter, Grant];
    alter_table_row_security: "alter table t disable row level security" => [Alter, Grant];
    alter_type_using: "alter table t alter a type text using pg_read_file(a)" => [Alter, FileRead, Read];
    alter_type_value: "alter type t add value 'x'" => [Alter];
    alter_function: "alter function f() set search_path = x" => [Alter, SessionLex];
    alter_function_owner: "alter function f() owner to r" => [Alter, Grant];
    alter_extension: "alter extension e update" => [Admin, Alter];
    alter_default_privileges: "alter default privileges in schema s grant select on tables to r" => [Grant];
    alter_subscription: "alter subscription s connection 'x'" => [Alter, Network, Replication];
    alter_publication: "alter publication p drop table t" => [Alter, Read, Replication];
    alter_tablespace: "alter tablespace t set (seq_page_cost = 1)" => [Admin, Alter];
    alter_collation: "alter collation c refresh version" => [Alter];
    drop_schema: "drop schema a, b cascade" => [Drop];
    drop_function: "drop function f(int)" => [Drop];
    drop_role: "drop role r" => [Admin, Drop];
    drop_owned: "drop owned by r" => [Drop, Grant];
    drop_subscription: "drop subscription s" => [Drop, Replication];
    drop_trigger: "drop trigger g on t" => [Drop];
    drop_cast: "drop cast (text as int)" => [Drop];
    drop_index: "drop index concurrently i" => [Drop];
    drop_user_mapping: "drop user mapping for u server s" => [Drop];
    drop_tablespace: "drop tablespace t" => [Admin, Drop];
    comment: "comment on table t is 'x'" => [Alter];
    security_label: "security label on table t is 'x'" => [Alter, Grant];
    grant: "grant select on t to r" => [Grant];
    revoke: "revoke all on all tables in schema s from public" => [Grant];
    grant_role: "grant a to b" => [Grant];
    reassign: "reassign owned by a to b" => [Alter, Grant];
    vacuum: "vacuum full t" => [Admin];
    analyze: "analyze" => [Admin];
    cluster: "cluster t using i" => [Admin];
    reindex: "reindex table t" => [Admin];
    checkpoint: "checkpoint" => [Admin];
    refresh: "refresh materialized view v" => [Read, Update];
    lock: "lock table t in share mode" => [Read, Update];
    scheduled_code: "select cron.schedule('x', '* * * * *', 'drop table t')" => [ExecCode, Read, Unreadable];
    background_code: "select pg_background_launch('drop table t')" => [ExecCode, Read, Unreadable];
    function_with_quoted_body: "create function f() returns void language sql as 'delete from t'" => [Create, Delete];
    function_in_a_function: "create function f() returns void language sql as 'create function g() returns int language sql as ''select 1'''" =>
        [Create, Unreadable];
    load: "load 'x'" => [Admin, ExecCode, Unreadable];
    terminate: "select pg_terminate_backend(1)" => [Admin, Read];
    slot: "select pg_create_logical_replication_slot('a', 'b')" => [Read, Replication];
    slot_changes: "select * from pg_logical_slot_get_changes('a', null, null)" => [Read, Replication];
    sequence: "select nextval('s')" => [Read, Update];
    catalog_write: "update pg_catalog.pg_class set relname = 'x' where oid = 1" => [Admin, Update];
    user_function: "select app.full_name(1)" => [Read];
    several: "begin; delete from t where a = 1; commit" => [Delete];
    json_table: "select * from json_table('[1]', '$[*]' columns (a int path '$'))" => [];
    xml_table: "select * from xmltable('/a' passing '<a/>' columns b text)" => [];
    window: "select row_number() over (partition by a order by b) from t window w as (order by c)" => [Read];
    grouping_sets: "select a, grouping(a) from t group by rollup (a)" => [Read];
    array_and_case: "select (array[1,2])[1], case when true then row(1) end, $1::int, current_user" => [];
    syntax_error: "selec 1" => [Unreadable];
    unterminated_string: "select 'abc" => [Unreadable];
    replication_grammar: "IDENTIFY_SYSTEM" => [Unreadable];
}

fn objects(sql: &str) -> Vec<(ObjectKind, String, bool)> {
    let name = |object: &Object| object.schema.iter().chain([&object.name]).cloned().collect::<Vec<_>>().join(".");
    read(sql.as_bytes()).statement.objects.iter().map(|object| (object.kind, name(object), object.write)).collect()
}

macro_rules! objects_of {
    ($($name:ident: $sql:expr => [$($kind:ident $object:literal $write:literal),*];)+) => {
        $(#[test]
        fn $name() {
            let expected: Vec<(ObjectKind, String, bool)> = vec![$((ObjectKind::$kind, $object.to_owned(), $write)),*];
            assert_eq!(objects($sql), expected, "{}", $sql);
        })+
    };
}

objects_of! {
    objects_of_select: "select f(a) from S.T join u on true" => [Function "f" false, Table "s.t" false, Table "u" false];
    objects_of_insert: "insert into t select * from u" => [Table "t" true, Table "u" false];
    objects_of_drop: r#"drop table a.b, "C""# => [Table "a.b" true, Table "C" true];
    objects_of_unicode_drop: r#"drop table U&"\0076ictim""# => [Table "victim" true];
    objects_of_drop_function: "drop function a.f(int)" => [Function "a.f" true];
    objects_of_drop_trigger: "drop trigger g on a.t" => [Table "a.t" true, Other "g" true];
    objects_of_drop_schema: "drop schema s" => [Schema "s" true];
    objects_of_drop_type: "drop type a.b" => [Type "a.b" true];
    objects_of_truncate: "truncate a, b.c" => [Table "a" true, Table "b.c" true];
    objects_of_explain: "explain delete from t" => [Table "t" false];
    objects_of_merge: "merge into t using s on true when matched then do nothing" => [Table "t" true, Table "s" false];
    objects_of_grant: "grant select on t to r" => [Table "t" true, Role "r" true];
    objects_of_database: "drop database d" => [Database "d" true];
    objects_of_alter: "alter view v rename to w" => [View "v" true];
    objects_of_rename_column: "alter table t rename column a to b" => [Other "a" true, Table "t" true];
    objects_of_call: "call a.p()" => [Function "a.p" false];
    objects_of_index: "create index i on t (a)" => [Index "i" true, Table "t" true];
    objects_once: "select * from t; select * from t" => [Table "t" false];
    names_of_expressions_are_no_tables: "with x as (select * from t) select * from x" => [Table "t" false];
    qualified_names_are_tables: "with x as (select 1) select * from s.x" => [Table "s.x" false];
    expressions_see_earlier_ones: "with a as (select 1), b as (select * from a) select * from b" => [];
    expressions_do_not_see_later_ones: "with b as (select * from a), a as (select 1) select * from b" => [Table "a" false];
    plain_expressions_do_not_see_themselves: "with t as (select * from t) select * from t" => [Table "t" false];
    recursive_expressions_see_all: "with recursive b as (select * from a), a as (select * from b) select * from a" => [];
    expressions_end_with_their_query: "select * from (with x as (select 1) select * from x) q, x" => [Table "x" false];
    expressions_are_seen_from_subqueries: "with x as (select 1) select * from (select * from x) q" => [];
    expressions_of_a_write: "with x as (select 1) insert into t select * from x" => [Table "t" true];
    writes_go_past_expressions: "with t as (select 1) delete from t where true" => [Table "t" true];
    aliases_in_locking_are_no_tables: "select * from t u for update of u" => [Table "t" false];
}

fn statement(sql: &str) -> Arc<Statement> {
    read(sql.as_bytes()).statement
}

#[test]
fn update_without_where_has_none() {
    assert!(!statement("update t set a = 1").has_where);
    assert!(!statement("delete from t").has_where);
    assert!(!statement("delete from t where a = 1; delete from t").has_where);
    assert!(!statement("with x as (delete from t returning 1) select 1").has_where);
    assert!(!statement("explain analyze delete from t").has_where);
    assert!(statement("delete from t where a = 1").has_where);
    assert!(statement("select * from t").has_where);
    assert!(statement("explain delete from t").has_where);
    assert!(statement("insert into t values (1) on conflict (a) do update set b = 1").has_where);
    assert!(!statement("insert into t select * from t on conflict (a) do update set b = 1").has_where);
    assert!(!statement("insert into t values (generate_series(1, 9)) on conflict (a) do update set b = 1").has_where);
    assert!(!statement("insert into t values (unnest(array(select a from t))) on conflict (a) do update set b = 1").has_where);
    assert!(statement("insert into t select * from s where c = 1 on conflict (a) do update set b = 1").has_where);
}

#[test]
fn constant_conditions_are_tautologies() {
    for condition in
        ["true", "1=1", "'a' = 'a'", "not false", "a = 1 or true", "a = 1 or (b = 2 or 1 < 2)", "id = id", "now() > '1970-01-01'"]
    {
        assert!(statement(&format!("delete from t where {condition}")).where_tautology, "{condition}");
    }
    for (merge, expected) in [
        ("on true when matched then delete", true),
        ("on t.a = t.a when matched then update set b = 1", true),
        ("on true when matched and t.b = 1 then delete", false),
        ("on t.a = s.a when matched and true then delete", false),
        ("on a = t.a when matched then delete", true),
        ("on true when not matched then insert values (1)", false),
    ] {
        assert_eq!(statement(&format!("merge into t using s {merge}")).where_tautology, expected, "{merge}");
    }
    assert!(statement("insert into t values (1) on conflict (a) do update set b = 1 where true").where_tautology);
    for condition in ["a = 1", "a = $1", "a = 1 and true", "exists (select 1 from u)", "current of c", "a is null", "a = b", "$1"]
    {
        assert!(!statement(&format!("delete from t where {condition}")).where_tautology, "{condition}");
    }
}

#[test]
fn text_without_tokens_is_an_empty_query() {
    for text in ["", " \n\t", ";", " ; ;", "-- ping", "/* ping */ ;", &" ".repeat(10_000), &"-- x\n".repeat(1_000)] {
        let reading = read(text.as_bytes());
        assert!(reading.statement.readable, "{text:?}");
        assert!(reading.statement.effects.is_empty() && reading.verbs.is_empty());
        assert_eq!(reading.statement.count, 0);
    }
}

#[test]
fn text_that_is_not_utf8_or_holds_zero_is_unreadable() {
    for text in [&b"select '\xff'"[..], b"select 1\0; drop table x", b"\x95\\'"] {
        let reading = read(text);
        assert!(!reading.statement.readable);
        assert_eq!(reading.statement.effects, Effects::of(&[Unreadable]));
        assert!(reading.mentions.reads.opaque);
    }
}

#[test]
fn unreadable_statements_say_why_without_literals() {
    let statement = statement("select 'secret' frm from");
    assert!(!statement.readable);
    assert!(!statement.unreadable_reason.as_ref().unwrap().contains("secret"));
    let code = super::read(b"do $$begin null; end$$").statement;
    assert_eq!(code.unreadable_reason.as_deref(), Some("code in a DO block cannot be judged"));
}

#[test]
fn verbs_name_each_statement() {
    let verbs = read(b"begin; copy t to stdout; copy t from stdin; copy t to '/x'; rollback to s").verbs;
    let tags: Vec<_> = verbs.iter().map(|verb| (verb.tag, verb.copy_out, verb.copy_in, verb.transaction)).collect();
    assert_eq!(
        tags,
        [
            ("BEGIN", false, false, Some(TransactionVerb::Begin)),
            ("COPY", true, false, None),
            ("COPY", false, true, None),
            ("COPY", false, false, None),
            ("ROLLBACK", false, false, Some(TransactionVerb::RollbackTo)),
        ]
    );
}

#[test]
fn passwords_are_not_shown() {
    let shown = |sql: &str| String::from_utf8(statement(sql).text.to_vec()).unwrap();
    assert_eq!(shown("alter role r password 'hunter2' valid until 'x'"), "alter role r password '***' valid until 'x'");
    assert_eq!(shown("create user r ENCRYPTED PASSWORD $$hunter2$$ login"), "create user r ENCRYPTED PASSWORD '***' login");
    assert_eq!(shown(r"create user r password E'hun\'ter2'; select 'x'"), "create user r password '***'; select 'x'");
    assert_eq!(shown("create user r password 'hun'\n'ter2'"), "create user r password '***'");
    assert_eq!(shown(r"create user r password U&'hunter\0032'"), "create user r password '***'");
    assert_eq!(shown("alter user r password null"), "alter user r password null");
    assert_eq!(
        shown("create user mapping for u server s options (user 'a', password 'hunter2')"),
        "create user mapping for u server s options (user 'a', password '***')"
    );
    assert_eq!(
        shown("create subscription s connection 'password=hunter2' publication p"),
        "create subscription s connection '***' publication p"
    );
    assert_eq!(shown("select dblink_disconnect('password=hunter2')"), "select dblink_disconnect('password ***");
    assert!(!shown("alter user r passwort password 'hunter2'").contains("hunter2"));
    assert!(!shown("do $$begin alter user r password 'hunter2'; end$$").contains("hunter2"));
    assert_eq!(shown("select 'hunter2'"), "select 'hunter2'");
}

fn is_readable(sql: &str) -> bool {
    read(sql.as_bytes()).statement.readable
}

#[test]
fn deep_text_is_refused_in_bounded_time() {
    let n = 100_000;
    for text in [
        format!("select {}1{}", "(".repeat(n), ")".repeat(n)),
        format!("select 1{}", "+1".repeat(n)),
        format!("select {}1", "-+".repeat(n)),
        format!("select {}1", "-+-+-+-+-+ ".repeat(n)),
        format!("select {} true", "not ".repeat(n)),
        format!("select {}1{}", "array[".repeat(n), "]".repeat(n)),
        format!("select {}1{}", "(select ".repeat(n), ")".repeat(n)),
        format!("select {}1{}", "case when true then ".repeat(n), " end".repeat(n)),
        format!("select 1{}", " union select 1, 2".repeat(n)),
        format!("select * from t{}", " join t using (a, b)".repeat(n)),
        format!("select 1{}", "::int".repeat(n)),
        format!("select {}1{}", "f(".repeat(n), ")".repeat(n)),
        format!("select {}", "(".repeat(n)),
    ] {
        assert!(!is_readable(&text), "{}", &text[..30]);
    }
}

#[test]
fn text_of_moderate_depth_is_read() {
    let n = 1_500;
    for text in [
        format!("select 1{}", "+1".repeat(n)),
        format!("select {}1{}", "(".repeat(n), ")".repeat(n)),
        format!("select 1{}", " union select 1, 2".repeat(n)),
        format!("select {}1{}", "f(".repeat(n), ")".repeat(n)),
        format!("select a{} from t", " || a".repeat(n)),
        format!("select 1 from t where a = 1{}", " or a = 2".repeat(n)),
    ] {
        assert!(is_readable(&text), "{}", &text[..30]);
    }
}

#[test]
fn bulk_inserts_are_read() {
    let rows: Vec<String> = (0..5_000).map(|n| format!("({n}, 'name {n}', -{n}.5, now())")).collect();
    let reading = read(format!("insert into t (a, b, c, d) values {}", rows.join(", ")).as_bytes());
    assert!(reading.statement.readable);
    assert_eq!(reading.statement.effects, Effects::of(&[Insert, Read]));
}

#[test]
fn long_lists_are_read_or_refused() {
    let list = |n: usize| format!("select 1 from t where a in ({}1)", "1,".repeat(n));
    assert!(is_readable(&list(20_000)));
    assert!(!is_readable(&list(60_000)));
    let rows = |n: usize| format!("insert into t values {}(1)", "(1),".repeat(n));
    assert!(is_readable(&rows(30_000)));
    assert!(!is_readable(&format!("insert into t select {}1", "1,".repeat(60_000))));
}

#[test]
fn text_over_the_limit_is_refused() {
    let text = |len: usize| format!("select '{}'", "x".repeat(len - 9));
    assert!(is_readable(&text(measure::TEXT_BYTES_MAX)));
    assert!(!is_readable(&text(measure::TEXT_BYTES_MAX + 1)));
}

/// Random bytes and random words of SQL: nothing may panic, and what is readable must have been parsed.
#[test]
fn random_text_never_panics() {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    const WORDS: &[&str] = &[
        "select", "from", "where", "(", ")", ",", ";", "'", "\"", "$$", "--", "/*", "*/", "drop", "table", "t", "a.b", "1",
        "union", "case", "end", "with", "as", "E'\\", "U&'", "\n", "update", "set", "=", "*", "[", "]", "::", "int", "create",
        "view", "alter", "role", "password", "'x'", "explain", "analyze", "copy", "to", "stdout", "merge", "into", "using", "on",
        "grant", "do", "call",
    ];
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..3_000 {
        let bytes: Vec<u8> = (0..random.random_range(0..60)).map(|_| random.random()).collect();
        let _ = read(&bytes);
        let words: Vec<&str> = (0..random.random_range(0..20)).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect();
        let reading = read(words.join(" ").as_bytes());
        assert_eq!(reading.statement.readable, !reading.statement.effects.contains(Unreadable));
    }
}

#[test]
fn names_of_queries_are_told() {
    use crate::protocol::postgres::rows::Reference::{Cursor, Prepared};
    let mentions = |sql: &str| read(sql.as_bytes()).mentions;
    assert_eq!(mentions("prepare P as select 1").defines, Some(Prepared("p".to_owned())));
    assert_eq!(mentions("declare c cursor for select 1").defines, Some(Cursor("c".to_owned())));
    assert_eq!(mentions("fetch all from c").refers, Some(Cursor("c".to_owned())));
    assert_eq!(mentions("execute p(1, 'x')").refers, Some(Prepared("p".to_owned())));
    for sql in [
        "execute p((select 1))",
        "execute p(f())",
        "fetch all from c; select 1",
        "select 1; execute p",
        "explain analyze execute p",
    ] {
        assert_eq!(mentions(sql).refers, None, "{sql}");
    }
}

#[test]
fn readings_are_shared_between_repetitions() {
    let text = b"select 'readings_are_shared_between_repetitions'";
    assert!(Arc::ptr_eq(&read(text).statement, &read(text).statement));
}

/// Shapes that nest with few tokens a level: the part that opens a level, and the one that closes it.
const SHAPES: &[(&str, &str, &str)] = &[
    ("(", "1", ")"),
    ("-+", "1", ""),
    ("- ", "1", ""),
    ("not ", "true", ""),
    ("(select ", "1", ")"),
    ("array[", "1", "]"),
    ("array(select ", "1", ")"),
    ("exists(select from t where ", "true", ")"),
    ("case when ", "true", " then 1 end"),
    ("f(", "1", ")"),
    ("row(", "1", ")"),
    ("coalesce(", "1", ")"),
    ("xmlelement(name a,", "1", ")"),
    ("json_object('a':", "1", ")"),
    ("(with x as (select ", "1", ") select 1)"),
    ("", "1", "+1"),
    ("", "1", "::int"),
    ("", "1", " is null"),
    ("", "1", " collate c"),
    ("", "1", " union select 1"),
    ("(", "1", ").a"),
    ("", "1", " at time zone 'x'"),
];

fn nested((open, core, close): (&str, &str, &str), levels: usize) -> String {
    format!("select {}{core}{}", open.repeat(levels), close.repeat(levels))
}

/// On half of the stack that a runtime's worker has; an overflow would end the test process.
fn read_on_half_a_worker(text: String) -> bool {
    let thread = std::thread::Builder::new().stack_size(1024 * 1024);
    thread.spawn(move || read_afresh(text.as_bytes()).statement.readable).unwrap().join().unwrap()
}

#[test]
fn what_is_read_in_place_fits_a_workers_stack() {
    for shape in SHAPES {
        let mut read_in_place = 0;
        for levels in [50, 100, 130, 190, 198, 380, 390, 398] {
            let readable = read_on_half_a_worker(nested(*shape, levels));
            read_in_place += u32::from(readable);
        }
        assert!(read_in_place > 0, "{shape:?}");
    }
}

#[test]
fn what_is_deep_fits_the_deep_stack() {
    for shape in SHAPES {
        for levels in [1_900, 2_450, 3_300, 4_990, 9_990] {
            read_on_half_a_worker(nested(*shape, levels));
        }
    }
}
