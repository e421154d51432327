use bytes::{BufMut, Bytes, BytesMut};
use weir_wire::postgres::FieldDescription;

use super::*;
use crate::{
    policy::object::{ColumnPattern, Glob, Mask, MaskWith},
    protocol::postgres::{catalog::Catalog, sql},
};

const TEXT: u32 = 25;
const INT4: u32 = 23;
const INT8: u32 = 20;
const USERS: u32 = 100;
const KIDS: u32 = 101;
const ORDERS: u32 = 102;
const PLAIN_VIEW: u32 = 103;
const DEEP_VIEW: u32 = 104;
const ROW_VIEW: u32 = 105;
const VIEW_OF_VIEW: u32 = 106;
const OPAQUE_VIEW: u32 = 107;
const STATS: u32 = 108;
const ACTIVE: u32 = 109;
const COMPUTING_VIEW: u32 = 110;
const USERS_ROW: u32 = 200;
const USERS_ROWS: u32 = 201;

fn row<const N: usize>(cells: [&str; N]) -> Vec<Option<Bytes>> {
    cells.iter().map(|cell| Some(Bytes::copy_from_slice(cell.as_bytes()))).collect()
}

/// users(id, email, password) with a child, orders(id, email), and views over them.
fn catalog() -> Catalog {
    let relations = [
        (USERS, "public", "users", &[("id", INT4), ("email", TEXT), ("password", TEXT)][..]),
        (KIDS, "public", "kids", &[("extra", INT4), ("password", TEXT)]),
        (ORDERS, "public", "orders", &[("id", INT4), ("email", TEXT)]),
        (PLAIN_VIEW, "public", "v", &[("id", INT4), ("pw", TEXT), ("n", INT8)]),
        (DEEP_VIEW, "public", "deep", &[("id", INT4), ("x", TEXT)]),
        (ROW_VIEW, "public", "rowview", &[("t", TEXT), ("id", INT4)]),
        (VIEW_OF_VIEW, "public", "vv", &[("a", TEXT)]),
        (OPAQUE_VIEW, "public", "ov", &[("a", TEXT), ("b", INT4)]),
        (ACTIVE, "public", "watched", &[("id", INT4)]),
        (COMPUTING_VIEW, "public", "cv", &[("n", INT4)]),
        (STATS, "pg_catalog", "pg_stats", &[("tablename", TEXT), ("most_common_vals", 2277)]),
    ];
    let views = [
        (PLAIN_VIEW, "SELECT users.id, upper(users.password) AS pw, count(*) OVER () AS n FROM public.users"),
        (DEEP_VIEW, "WITH q AS (SELECT users.id, users.password FROM public.users) SELECT q.id, q.password AS x FROM q"),
        (ROW_VIEW, "SELECT (u.*)::text AS t, u.id FROM public.users u"),
        (VIEW_OF_VIEW, "SELECT v.pw AS a FROM public.v"),
        (COMPUTING_VIEW, "SELECT ascii(q.p) AS n FROM (SELECT users.password AS p FROM public.users) q"),
        (OPAQUE_VIEW, "SELECT app.f() AS a, orders.id AS b FROM public.orders"),
    ];
    let oid = |oid: u32| oid.to_string();
    let columns = relations.iter().flat_map(|(table, _, _, columns)| {
        columns.iter().enumerate().map(|(index, (name, kind))| row([&oid(*table), &(index + 1).to_string(), name, &oid(*kind)]))
    });
    Catalog::from_rows(vec![
        vec![],
        relations.iter().map(|(table, schema, name, _)| row([&oid(*table), schema, name])).collect(),
        columns.collect(),
        vec![row([&oid(KIDS), &oid(USERS)])],
        views.iter().map(|(view, query)| row([&oid(*view), query])).collect(),
        vec![row([&oid(USERS_ROW), &oid(USERS), "0", "0", "0"]), row([&oid(USERS_ROWS), "0", &oid(USERS_ROW), "0", "0"])],
        ["upper", "count", "now", "row_to_json", "set_config", "setval", "pg_advisory_lock", "ascii", "lower"]
            .iter()
            .map(|name| row(["known", name]))
            .chain([row(["opaque", "f"])])
            .chain(["=", "||", "<=", ">=", "<", ">", "*"].iter().map(|name| row(["operator", name])))
            .chain([row(["opaque operator", "*"])])
            .collect(),
        vec![row([&oid(ACTIVE)])],
    ])
    .unwrap()
}

fn glob(text: &str) -> Glob {
    Glob { text: text.into(), matcher: globset::Glob::new(text).unwrap().compile_matcher() }
}

fn mask(name: &str, schema: &str, table: &str, column: &str, with: MaskWith) -> Mask {
    let pattern = ColumnPattern { text: "pattern".into(), schema: glob(schema), table: glob(table), column: glob(column) };
    Mask { name: name.into(), columns: vec![pattern], json_keys: vec![], headers: vec![], with }
}

fn set() -> MaskSet {
    let masks = [
        mask("p/pw", "*", "users", "password", MaskWith::Redact),
        mask("p/mail", "public", "users", "email", MaskWith::KeepDomain),
    ];
    MaskSet::new(masks.iter())
}

fn field(name: &str, table_oid: u32, attribute: i16, type_oid: u32) -> FieldDescription {
    FieldDescription {
        name: Bytes::copy_from_slice(name.as_bytes()),
        table_oid,
        attribute,
        type_oid,
        type_size: -1,
        type_modifier: -1,
        format: 0,
    }
}

/// Which outputs of the statement are masked.
fn masked(sql: &str, fields: &[FieldDescription]) -> Vec<usize> {
    let (set, catalog) = (set(), catalog());
    let mentions = sql::read(sql.as_bytes()).mentions;
    let mut plan = RowPlan::new(&set, fields, Some(&mentions), &catalog);
    let mut out = BytesMut::new();
    let values = vec![Some(&b"some value"[..]); fields.len()];
    plan.mask_row(&data_row(&values), &[], &mut out).unwrap();
    plan.masked_ordinals()
}

fn data_row(values: &[Option<&[u8]>]) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_i16(i16::try_from(values.len()).unwrap());
    for value in values {
        match value {
            None => body.put_i32(-1),
            Some(value) => {
                body.put_i32(i32::try_from(value.len()).unwrap());
                body.put_slice(value);
            }
        }
    }
    body
}

macro_rules! masks {
    ($($name:ident: $sql:expr, [$(($field:expr, $table:expr, $attribute:expr, $type:expr)),*] => [$($ordinal:expr),*];)+) => {
        $(#[test]
        fn $name() {
            let expected: Vec<usize> = vec![$($ordinal),*];
            assert_eq!(masked($sql, &[$(field($field, $table, $attribute, $type)),*]), expected);
        })+
    };
}

masks! {
    by_origin: "select id, password from users", [("id", USERS, 1, INT4), ("password", USERS, 3, TEXT)] => [1];
    by_origin_under_an_alias: "select password x from users", [("x", USERS, 3, TEXT)] => [0];
    by_origin_of_a_child: "select extra, password from kids", [("extra", KIDS, 1, INT4), ("password", KIDS, 2, TEXT)] => [1];
    not_other_tables: "select id, email from orders", [("id", ORDERS, 1, INT4), ("email", ORDERS, 2, TEXT)] => [];
    by_name_where_the_table_is_mentioned: "select u.id as password from users u", [("password", USERS, 1, INT4)] => [0];
    by_name_not_where_it_is_not: "select id as password from orders", [("password", ORDERS, 1, INT4)] => [];
    whole_row: "select u from users u", [("u", USERS, 0, USERS_ROW)] => [0];
    whole_row_in_an_expression: "select row_to_json(u) from users u", [("row_to_json", 0, 0, 114)] => [0];
    whole_row_by_functional_notation: "select u.row_to_json from users u", [("row_to_json", 0, 0, 114)] => [0];
    row_type_of_no_origin: "select upper('x')", [("upper", 0, 0, USERS_ROW)] => [0];
    array_of_row_type: "select upper('x')", [("upper", 0, 0, USERS_ROWS)] => [0];
    expression: "select id, upper(password) from users", [("id", USERS, 1, INT4), ("upper", 0, 0, TEXT)] => [1];
    expression_with_another_type: "select password::int from users", [("password", 0, 0, INT4)] => [0];
    expression_of_another_column: "select upper(id) from users", [("upper", 0, 0, TEXT)] => [];
    condition_does_not_mask: "select count(*) from users where email = $1", [("count", 0, 0, INT8)] => [];
    expression_of_another_table: "select upper(o.email) from users u join orders o using (id)", [("upper", 0, 0, TEXT)] => [];
    expression_of_its_table: "select upper(u.email) from users u join orders o using (id)", [("upper", 0, 0, TEXT)] => [0];
    expression_before_a_star: "select upper(id), * from users",
        [("upper", 0, 0, TEXT), ("id", USERS, 1, INT4), ("email", USERS, 2, TEXT), ("password", USERS, 3, TEXT)] => [2, 3];
    expression_behind_a_star: "select o.*, upper(password) from orders o, users",
        [("id", ORDERS, 1, INT4), ("x", ORDERS, 2, TEXT), ("upper", 0, 0, TEXT)] => [2];
    union: "select password from users union select 'x'", [("password", 0, 0, TEXT)] => [0];
    union_under_an_alias: "select password x from users union all select 'x'", [("x", 0, 0, TEXT)] => [0];
    union_of_stars: "select * from users union select 1, 'x', 'y'", [("a", 0, 0, INT4), ("b", 0, 0, TEXT), ("c", 0, 0, TEXT)] => [0, 1, 2];
    scalar_subquery: "select (select password from users limit 1) x", [("x", 0, 0, TEXT)] => [0];
    subquery_expression: "select upper(p) from (select password p from users) q", [("upper", 0, 0, TEXT)] => [0];
    subquery_star_with_aliases: "select upper(c) from (select * from users) q(a, b, c)", [("upper", 0, 0, TEXT)] => [0];
    table_alias_with_columns: "select upper(z) from users u(x, y, z)", [("upper", 0, 0, TEXT)] => [0];
    full_join_using: "select password from users a full join users b using (password)", [("password", 0, 0, TEXT)] => [0];
    returning: "update users set id = 1 where id = 2 returning password || 'x' as y, id", [("y", 0, 0, TEXT), ("id", USERS, 1, INT4)] => [0];
    view_column: "select id, pw, n from v", [("id", PLAIN_VIEW, 1, INT4), ("pw", PLAIN_VIEW, 2, TEXT), ("n", PLAIN_VIEW, 3, INT8)] => [1];
    view_column_in_an_expression: "select upper(pw) from v", [("upper", 0, 0, TEXT)] => [0];
    deep_view: "select id, x from deep", [("id", DEEP_VIEW, 1, INT4), ("x", DEEP_VIEW, 2, TEXT)] => [1];
    view_of_whole_rows: "select t, id from rowview", [("t", ROW_VIEW, 1, TEXT), ("id", ROW_VIEW, 2, INT4)] => [0];
    view_of_a_view: "select a from vv", [("a", VIEW_OF_VIEW, 1, TEXT)] => [0];
    view_of_an_opaque_function: "select a, b from ov", [("a", OPAQUE_VIEW, 1, TEXT), ("b", OPAQUE_VIEW, 2, INT4)] => [0];
    opaque_function: "select app.f(), 1", [("f", 0, 0, TEXT), ("one", 0, 0, INT4)] => [0];
    unknown_function: "select made_since()", [("made_since", 0, 0, TEXT)] => [0];
    known_function: "select now(), upper('x')", [("now", 0, 0, 1184), ("upper", 0, 0, TEXT)] => [];
    execute: "execute p", [("a", 0, 0, TEXT), ("id", ORDERS, 1, INT4), ("password", USERS, 3, TEXT)] => [0, 2];
    fetch: "fetch all from c", [("x", 0, 0, TEXT)] => [0];
    unreadable: "do $$begin end$$", [("x", 0, 0, TEXT), ("n", 0, 0, INT4)] => [0, 1];
    number_of_an_opaque_function: "select app.f()", [("f", 0, 0, INT4)] => [0];
    number_of_a_fetch: "fetch all from c", [("ascii", 0, 0, INT4)] => [0];
    unknown_operator: "select 1 @@@ 2", [("x", 0, 0, INT4)] => [0];
    opaque_operator: "select 1 * 2", [("x", 0, 0, INT4)] => [0];
    between_is_known: "select 1 between 0 and 2", [("x", 0, 0, 16)] => [];
    computing_view: "select n from cv", [("n", COMPUTING_VIEW, 1, INT4)] => [0];
    activity: "select pg_stat_get_backend_activity(1)", [("x", 0, 0, TEXT)] => [0];
    declared: "declare c cursor for select id, password || '' from users", [("id", USERS, 1, INT4), ("x", 0, 0, TEXT)] => [1];
    prepared: "prepare p as select upper(email), upper(id) from users", [("x", 0, 0, TEXT), ("y", 0, 0, TEXT)] => [0];
    row_of_a_join: "select x::text from (users join orders using (id)) x", [("x", 0, 0, TEXT)] => [0];
    row_of_a_join_in_a_call: "select row_to_json(x) from (users join orders using (id)) x", [("x", 0, 0, 114)] => [0];
    row_of_a_join_by_functional_notation: "select x.row_to_json from (users join orders using (id)) x", [("x", 0, 0, 114)] => [0];
    row_of_a_join_in_a_subquery: "select t.z from (select x as z from (users join orders using (id)) x) t", [("z", 0, 0, 2249)] => [0];
    row_of_a_subquery: "select q::text from (select * from users) q", [("q", 0, 0, TEXT)] => [0];
    row_of_a_harmless_subquery: "select q::text from (select id from users) q", [("q", 0, 0, TEXT)] => [];
    row_of_an_expression: "with q as (select * from users) select q::text from q", [("q", 0, 0, TEXT)] => [0];
    column_of_a_join: "select x.password || '' from (users join orders using (id)) x", [("x", 0, 0, TEXT)] => [0];
    qualifier_of_several: "select x.password || '' from (users join orders using (id)) x where exists (select 1 from orders x)",
        [("x", 0, 0, TEXT)] => [0];
    qualifier_of_a_subquery_and_a_table: "select (select x.p from (select u.password p from users u) x), x.id from orders x",
        [("p", 0, 0, TEXT), ("id", ORDERS, 1, INT4)] => [0];
    qualifier_of_an_expression_and_a_table: "with x as (select * from users) select x.password || '' from x, (select 1 from orders x) y",
        [("p", 0, 0, TEXT)] => [0];
    explain: "explain select * from users where email = 'x'", [("QUERY PLAN", 0, 0, TEXT)] => [];
    table_newer_than_the_catalog: "select a from fresh", [("a", 999, 1, TEXT)] => [0];
    column_newer_than_the_catalog: "select a from orders", [("a", ORDERS, 9, TEXT)] => [0];
    system_column: "select ctid from users", [("ctid", USERS, -1, 27)] => [];
    statistics: "select tablename, most_common_vals from pg_stats", [("tablename", STATS, 1, TEXT), ("most_common_vals", STATS, 2, 2277)] => [1];
}

#[test]
fn without_a_statement_every_value_is_masked() {
    let (set, catalog) = (set(), catalog());
    let fields = [field("a", 0, 0, TEXT), field("n", 0, 0, INT4), field("id", ORDERS, 1, INT4)];
    assert_eq!(RowPlan::new(&set, &fields, None, &catalog).masked_ordinals(), [0, 1]);
}

#[test]
fn without_masks_nothing_is_planned() {
    let none = MaskSet::new([].iter());
    assert!(none.is_empty());
    assert!(RowPlan::new(&none, &[field("password", USERS, 3, TEXT)], None, &catalog()).is_noop());
    assert!(!none.touches(&Mentions::unknown(), &catalog()));
}

#[test]
fn many_outputs_over_many_relations_are_planned_at_once() {
    let list = |of: &dyn Fn(usize) -> String, n: usize| (0..n).map(of).collect::<Vec<_>>().join(", ");
    let outputs: Vec<_> = (0..1_600).map(|n| field(&format!("c{n}"), 0, 0, TEXT)).collect();
    let started = std::time::Instant::now();
    let aliases =
        format!("select {} from {}", list(&|n| format!("u{n}.id || ''"), 1_600), list(&|n| format!("users u{n}"), 1_200));
    assert_eq!(masked(&aliases, &outputs), Vec::<usize>::new());
    let unknown =
        format!("select {} from {}", list(&|n| format!("u{n}.id || ''"), 1_600), list(&|n| format!("s{n}.users u{n}"), 1_200));
    assert_eq!(masked(&unknown, &outputs).len(), 1_600);
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn touches_tables_with_masked_columns() {
    let (set, catalog) = (set(), catalog());
    let touches = |sql: &str| set.touches(&sql::read(sql.as_bytes()).mentions, &catalog);
    for sql in [
        "copy users to stdout",
        "select id from public.users",
        "select 1 from v",
        "select f()",
        "insert into kids values (1)",
        "execute p",
        "insert into watched values (1)",
    ] {
        assert!(touches(sql), "{sql}");
    }
    for sql in [
        "select * from watched",
        "insert into orders values (1)",
        "copy orders to stdout",
        "select 1",
        "select upper('x') from orders",
        "begin",
    ] {
        assert!(!touches(sql), "{sql}");
    }
}

#[test]
fn outputs_masked_columns_only_where_they_are_read() {
    let (set, catalog) = (set(), catalog());
    let outputs = |sql: &str| set.outputs(&sql::read(sql.as_bytes()).mentions, &catalog);
    for sql in [
        "copy users to stdout",
        "copy users (id, password) to stdout",
        "copy (select email from users) to stdout",
        "copy (select * from users) to stdout",
        "copy (table users) to stdout",
        "copy (select id, upper(email) as id from users) to stdout",
        "copy (select u from users u) to stdout",
        "copy (select u.* from orders, users u) to stdout",
        "copy (select * from users, generate_series(1, 2)) to stdout",
        "copy (select c from (select email as c from users) q) to stdout",
        "copy (select * from (select * from users) q) to stdout",
        "copy (with x as (select email as c from users) select c from x) to stdout",
        "copy (select (select c from (select email as c from users) q)) to stdout",
        "copy (select id from users union select 1 from users where email = 'x') to stdout",
        "copy (delete from users returning email) to stdout",
        "copy (select id from users) to stdout; copy (select email from users) to stdout",
        "copy v to stdout",
        "copy (select pw from v) to stdout",
        "execute p",
    ] {
        assert!(outputs(sql), "{sql}");
    }
    for sql in [
        "copy (select id from users) to stdout",
        "copy users (id) to stdout",
        "copy (select id, count(*) from users where email like '%x' group by id) to stdout",
        "copy (select o.email, u.id from users u join orders o on o.id = u.id) to stdout",
        "copy (delete from users where email = 'x' returning id) to stdout",
        "copy orders to stdout",
    ] {
        assert!(!outputs(sql), "{sql}");
    }
}

#[test]
fn launders_what_is_stored_elsewhere() {
    let (set, catalog) = (set(), catalog());
    let launders = |sql: &str| set.launders(&sql::read(sql.as_bytes()).mentions, &catalog);
    for sql in [
        "create table t as select password as harmless from users",
        "select * into t from users",
        "insert into orders select id, password from users",
        "update orders set email = (select password from users)",
        "update users set id = password",
        "update users set password = (select u.password from users u limit 1)",
        "update orders set password = u.password from users u",
        "select set_config('my.x', password, false) from users",
        "copy users to '/tmp/x'",
        "select pg_notify('foo', email) from users",
        "select pg_notify('foo', q.c) from (select email as c from users) q",
        "with x as (select email as c from users) select pg_notify('foo', c) from x",
        "select pg_notify('foo', c) from users u(a, c)",
        "select pg_notify('foo', f) from users, lateral upper(email) f",
        "select lo_from_bytea(0, email::bytea) from users",
        "select lo_put(1, 0, email::bytea) from users",
        "select lowrite(1, email::bytea) from users",
        "select pg_logical_emit_message(true, 'a', email) from users",
        "select dblink_exec('x', email) from users",
        "select pg_create_restore_point(email) from users",
        "with x as (select email as c from users) insert into orders (email) select c from x",
        "update orders set email = q.c from (select email as c from users) q",
        "with x as (select email as c from users) update orders set email = x.c from x",
        "with x as (select email as c from users) merge into orders using x on true when not matched then insert (email) values (x.c)",
        "insert into users (id) values (1) on conflict (id) do update set id = users.email",
        "update users set id = email::int returning id",
        "create temp table t as select email from users",
        "with x as (insert into orders (email) select email from users returning *) select * from x",
        "select set_config('my.x', p, false) from (select password p from users) q",
        "with q as (select password p from users) insert into orders select 1, p from q",
        "update orders set email = q.p from (select password p from users) q",
        "select setval('s', ascii(password)) from users",
        "select pg_advisory_lock(ascii(password)) from users",
        "alter table users alter column id type text using password",
        "alter table users add column x text generated always as (password) stored",
        "alter table users rename to harmless",
        "alter table users rename column password to harmless",
        "alter table users set schema other",
        "alter schema public rename to other",
        "alter table kids no inherit users",
        "alter table users inherit par",
        "alter table pt attach partition users for values from (0) to (100)",
        "create rule r as on insert to users do also notify x",
        "create trigger g after insert on users for each row execute function now()",
        "create policy p on users using (true)",
        "create materialized view m as select password as x from users",
        "create function g() returns text language sql as 'select password from users'",
        "create function g() returns text begin atomic select password from users; end",
    ] {
        assert!(launders(sql), "{sql}");
    }
    for sql in [
        "create table t as select id from users",
        "insert into users values (1, 'a', 'b')",
        "update users set password = $1 where email = $2",
        "update users set password = lower(password)",
        "select pg_notify('foo', id::text) from users where email = 'x'",
        "insert into users (id, email) values (1, 'x') on conflict (id) do update set email = excluded.email",
        "insert into users (id, email) values (1, 'x') returning id, email, password",
        "with x as (insert into orders values (1, 'x') returning id) select u.email from users u join x on x.id = u.id",
        "with x as (select id from users) insert into orders (id) select id from x",
        "select nextval('s'), email from users",
        "alter table users alter column password type text",
        "alter table users alter column password type text using lower(password)",
        "alter table users rename column id to number",
        "alter table orders rename to purchases",
        "alter table users add column x int default 0",
        "create trigger g after insert on orders for each row execute function now()",
        "create or replace view w as select password as x from users",
        "create function g() returns int language sql as 'select 1'",
    ] {
        assert!(!launders(sql), "{sql}");
    }
}

fn plan() -> RowPlan {
    let fields = [
        field("id", USERS, 1, INT4),
        field("email", USERS, 2, TEXT),
        field("password", USERS, 3, TEXT),
        field("n", USERS, 1, INT4),
    ];
    let mentions = sql::read(b"select id, email, password, id n from users").mentions;
    RowPlan::new(&set(), &fields, Some(&mentions), &catalog())
}

#[test]
fn masks_a_row_in_text() {
    let (mut plan, mut out) = (plan(), BytesMut::new());
    let body = data_row(&[Some(b"1"), Some(b"ann@x.io"), Some(b"hunter2"), None]);
    plan.mask_row(&body, &[], &mut out).unwrap();
    assert_eq!(out, data_row(&[Some(b"1"), Some(b"***@x.io"), Some(b"***"), None]));
    plan.mask_row(&data_row(&[None, None, Some(b""), Some(b"4")]), &[0], &mut BytesMut::new()).unwrap();
    assert_eq!(plan.counts().collect::<Vec<_>>(), [("p/mail", "email", 1), ("p/pw", "password", 2)]);
}

#[test]
fn masks_a_row_in_binary() {
    let (mut plan, mut out) = (plan(), BytesMut::new());
    let body = data_row(&[Some(&[0, 0, 0, 1]), Some(b"ann@x.io"), Some(b"hunter2"), Some(&[0, 0, 0, 2])]);
    plan.mask_row(&body, &[1], &mut out).unwrap();
    assert_eq!(out, data_row(&[Some(&[0, 0, 0, 1]), Some(b"***@x.io"), Some(b"***"), Some(&[0, 0, 0, 2])]));
    let each = [1, 0, 1, 0];
    assert!(plan.mask_row(&body, &each, &mut BytesMut::new()).is_ok());
}

#[test]
fn malformed_rows_are_refused() {
    let body = data_row(&[Some(b"1"), Some(b"ann@x.io"), Some(b"hunter2"), None]);
    let refused = |body: &[u8], formats: &[u16]| plan().mask_row(body, formats, &mut BytesMut::new()).is_err();
    for len in 0..body.len() {
        assert!(refused(&body[..len], &[]), "cut at {len}");
    }
    assert!(refused(&[&body[..], b"x"].concat(), &[]));
    assert!(refused(&data_row(&[None, None, None]), &[]));
    assert!(refused(&data_row(&[None; 5]), &[]));
    assert!(refused(&[0xff, 0xff], &[]));
    assert!(refused(&[&[0, 4][..], &(-2_i32).to_be_bytes(), &[0; 12]].concat(), &[]));
    assert!(refused(&[&[0, 4][..], &i32::MAX.to_be_bytes(), &[0; 12]].concat(), &[]));
    assert!(refused(&body, &[0, 0]));
    assert!(refused(&body, &[2]));
}

#[test]
fn random_rows_never_panic() {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    let mut random = StdRng::seed_from_u64(7);
    let golden = data_row(&[Some(b"1"), Some(b"ann@x.io"), Some(b"hunter2"), None]);
    for _ in 0..20_000 {
        let mut body = golden.to_vec();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..body.len());
            body[at] = random.random();
        }
        let mut out = BytesMut::new();
        if plan_shared(&body, &mut out).is_ok() {
            assert!(!out.windows(7).any(|window| window == b"hunter2"));
        }
    }
}

fn plan_shared(body: &[u8], out: &mut BytesMut) -> Result<(), weir_wire::WireError> {
    thread_local!(static PLAN: std::cell::RefCell<RowPlan> = std::cell::RefCell::new(plan()));
    PLAN.with_borrow_mut(|plan| plan.mask_row(body, &[], out))
}

#[test]
fn catalog_rows_of_another_shape_are_refused() {
    assert!(Catalog::from_rows(vec![]).is_err());
    let with = |rows| Catalog::from_rows(vec![vec![], vec![rows], vec![], vec![], vec![], vec![], vec![], vec![]]);
    assert!(with(row(["1", "public"])).is_err());
    assert!(with(row(["x", "public", "t"])).is_err());
    assert!(with(vec![None, None, None]).is_err());
    assert!(with(row(["1", "public", "t"])).unwrap().knows(1));
}
