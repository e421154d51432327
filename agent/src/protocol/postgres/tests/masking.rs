//! Rows on their way down: values masked by column, and what may quote them made canonical.

use super::kit::*;
use crate::flow::{Failure, Reason};

const USERS: &[(&str, u32, i16, u32, u16)] = &[("id", 16385, 1, 23, 0), ("email", 16385, 2, 25, 0)];
const USERS_BINARY: &[(&str, u32, i16, u32, u16)] = &[("id", 16385, 1, 23, 1), ("email", 16385, 2, 25, 1)];

fn cell(text: &[u8]) -> Option<Vec<u8>> {
    Some(text.to_vec())
}

#[test]
fn masks_rows_of_a_simple_query() {
    let mut talk = Talk::session(MASKS);
    assert_eq!(talk.fetched.len(), 1);
    assert_eq!(talk.fetched[0].database, "shop");
    talk.client(&query("select id, email from users"));
    talk.server(
        &[description(USERS), row(&[Some(b"1"), Some(b"ann@x.io")]), row(&[Some(b"2"), None]), complete("SELECT 2"), ready(b'I')]
            .concat(),
    );
    let heard = talk.take_client();
    assert_eq!(tags(&heard), "TDDCZ");
    assert_eq!(rows(&heard), [[cell(b"1"), cell(b"***")], [cell(b"2"), None]]);
    assert!(talk.masked() >= 1);
    assert_eq!(talk.finished(), [(2, "SELECT 2".to_owned(), Some(2))]);
}

#[test]
fn masks_binary_rows_of_a_described_portal() {
    let mut talk = Talk::session(MASKS);
    let batch = [parse("", "select id, email from users"), bind("", "", &[1]), describe('P', ""), execute(""), sync()].concat();
    talk.client(&batch);
    assert_eq!(talk.take_server(), batch);
    talk.server(&[message(b'1', b""), message(b'2', b""), description(USERS_BINARY)].concat());
    talk.server(&[row(&[Some(&[0, 0, 0, 1]), Some(b"ann@x.io")]), complete("SELECT 1"), ready(b'I')].concat());
    let heard = talk.take_client();
    assert_eq!(tags(&heard), "12TDCZ");
    assert_eq!(rows(&heard), [[cell(&[0, 0, 0, 1]), cell(b"***")]]);
}

#[test]
fn describes_a_portal_itself_when_the_client_does_not() {
    let mut talk = Talk::session(MASKS);
    talk.client(&[parse("s", "select id, email from users"), bind("", "s", &[]), execute(""), sync()].concat());
    assert_eq!(tags(&talk.take_server()), "PBDES");
    talk.server(&[message(b'1', b""), message(b'2', b""), description(USERS)].concat());
    talk.server(&[row(&[Some(b"1"), Some(b"ann@x.io")]), complete("SELECT 1"), ready(b'I')].concat());
    let heard = talk.take_client();
    assert_eq!(tags(&heard), "12DCZ", "the answer to our question is kept");
    assert_eq!(rows(&heard), [[cell(b"1"), cell(b"***")]]);
}

#[test]
fn describes_a_portal_whose_statement_was_described() {
    let mut talk = Talk::session(MASKS);
    talk.client(&[parse("s", "select id, email from users"), describe('S', "s"), sync()].concat());
    talk.server(&[message(b'1', b""), message(b't', &[0, 0]), description(USERS), ready(b'I')].concat());
    talk.take_client();
    talk.take_server();
    talk.client(&[bind("", "s", &[]), execute(""), sync()].concat());
    assert_eq!(tags(&talk.take_server()), "BDES", "the server may have planned anew, with other columns");
    let swapped = description(&[("email", 16385, 2, 25, 0), ("id", 16385, 1, 23, 0)]);
    talk.server(&[message(b'2', b""), swapped, row(&[Some(b"ann@x.io"), Some(b"1")])].concat());
    talk.server(&[complete("SELECT 1"), ready(b'I')].concat());
    let heard = talk.take_client();
    assert_eq!((tags(&heard).as_str(), rows(&heard)), ("2DCZ", vec![vec![cell(b"***"), cell(b"1")]]));
}

#[test]
fn describes_again_when_the_clients_describe_was_skipped() {
    let mut talk = Talk::session(MASKS);
    talk.client(&[parse("s", "select id, email from users"), sync()].concat());
    talk.server(&[message(b'1', b""), ready(b'I')].concat());
    talk.client(&[bind("", "nowhere", &[]), describe('S', "s"), sync()].concat());
    talk.server(&[error("26000", "prepared statement \"nowhere\" does not exist", ""), ready(b'I')].concat());
    talk.take_server();
    talk.client(&[bind("", "s", &[]), execute(""), sync()].concat());
    assert_eq!(tags(&talk.take_server()), "BDES");
}

#[test]
fn ends_the_session_on_rows_without_a_description() {
    let mut talk = Talk::session(MASKS);
    talk.client(&query("select id, email from users")).server(&row(&[Some(b"1"), Some(b"ann@x.io")]));
    assert_eq!(talk.closed, Some(Reason::MaskImpossible));
    let heard = talk.take_client();
    assert_eq!(tags(&heard), "E");
    assert!(!String::from_utf8_lossy(&heard).contains("ann@x.io"));
}

#[test]
fn ends_the_session_when_the_catalog_cannot_be_had() {
    let mut talk = Talk::new("tls: {mode: off}", MASKS);
    talk.catalog = Err(Failure::new(Reason::UpstreamUnreachable, "connect 10.0.0.5:5432: refused"));
    talk.client(&startup(&[("user", "ann")])).server(&[auth_ok(), ready(b'I')].concat());
    assert_eq!(talk.closed, Some(Reason::MaskImpossible));
    assert_eq!(tags(&talk.take_client()), "RE");
}

#[test]
fn asks_for_the_catalog_again_when_a_table_is_new() {
    let mut talk = Talk::session(MASKS);
    let new = description(&[("body", 99_999, 1, 25, 0)]);
    talk.client(&query("select body from fresh"));
    talk.server(&[new.clone(), row(&[Some(b"text")]), complete("SELECT 1"), ready(b'T')].concat());
    assert_eq!(talk.fetched.len(), 2);
    assert_eq!(talk.fetched[1].missing, [99_999]);
    talk.client(&query("select body from fresh"));
    talk.server(&[new, complete("SELECT 0"), ready(b'T')].concat());
    assert_eq!(talk.fetched.len(), 2, "once in a transaction is enough");
    assert_eq!(talk.closed, None);
}

#[test]
fn rewrites_errors_that_may_quote_masked_values() {
    let mut talk = Talk::session(MASKS);
    let quoting = error("22P02", "invalid input syntax for type integer: \"ann@x.io\"", "row (1, ann@x.io)");
    talk.client(&query("select email::int from users")).server(&[quoting.clone(), ready(b'I')].concat());
    let heard = talk.take_client();
    assert_eq!(tags(&heard), "EZ");
    assert_eq!(error_field(&heard, b'M'), "invalid_text_representation");
    assert_eq!(error_field(&heard, b'C'), "22P02");
    assert_eq!(error_field(&heard, b'D'), "");
    assert_eq!(talk.finished()[0].1, "ERROR 22P02");

    talk.client(&query("select 'x'::int")).server(&[error("22P02", "invalid: \"x\"", ""), ready(b'I')].concat());
    assert_eq!(error_field(&talk.take_client(), b'M'), "invalid: \"x\"", "others keep their words");
}

#[test]
fn denies_a_copy_out_of_masked_columns() {
    let mut talk = Talk::session(MASKS);
    talk.client(&query("copy users to stdout"));
    let heard = talk.take_client();
    assert_eq!(tags(&heard), "EZ");
    assert_eq!(error_field(&heard, b'C'), "42501");
    assert!(error_field(&heard, b'M').contains("COPY TO STDOUT"));
    assert!(talk.to_server.is_empty());
    assert_eq!(talk.finished()[0].1, "ERROR 42501");
    talk.client(&[parse("", "copy users to stdout"), bind("", "", &[]), execute(""), sync()].concat()).server(&ready(b'I'));
    assert_eq!(tags(&talk.take_client()), "EZ");
    assert_eq!(tags(&talk.take_server()), "S");
}

#[test]
fn masks_nothing_when_the_policy_only_observes() {
    let mut talk = Talk::session(&format!("  mode: observe\n{MASKS}"));
    assert!(talk.fetched.is_empty());
    talk.client(&query("select id, email from users"));
    talk.server(&[description(USERS), row(&[Some(b"1"), Some(b"ann@x.io")])].concat());
    assert_eq!(rows(&talk.take_client()), [[cell(b"1"), cell(b"ann@x.io")]]);
}

#[test]
fn masks_the_same_whatever_the_split() {
    let run = |piece| {
        let mut talk = Talk::session_in_pieces(MASKS, piece);
        talk.client(&[parse("s", "select id, email from users"), bind("", "s", &[]), execute(""), sync()].concat());
        talk.client(&query("drop table x"));
        talk.server(&[message(b'1', b""), message(b'2', b""), description(USERS)].concat());
        talk.server(&[row(&[Some(b"1"), Some(b"ann@x.io")]), complete("SELECT 1"), ready(b'I')].concat());
        (talk.take_client(), talk.take_server(), talk.masked())
    };
    let whole = run(usize::MAX);
    assert_eq!(tags(&whole.0), "12DCZEZ");
    for piece in 1..60 {
        assert_eq!(run(piece), whole, "in pieces of {piece}");
    }
}

#[test]
fn ends_the_session_on_a_row_that_is_too_long_to_mask() {
    let mut talk = Talk::session(MASKS);
    talk.client(&query("select id, email from users")).server(&description(USERS));
    talk.server(&[b'D', 0x10, 0, 0, 0, 0, 2]);
    assert_eq!(talk.closed, Some(Reason::MaskImpossible));
    assert_eq!(tags(&talk.take_client()), "TE");
}

#[test]
fn rewrites_errors_of_planning_that_may_quote_masked_values() {
    let fails = error("22P02", "invalid input syntax for type integer: \"ann@x.io\"", "");
    let mut talk = Talk::session(MASKS);
    talk.client(&[parse("s", "select leak(id) from users"), sync()].concat());
    talk.server(&[fails.clone(), ready(b'I')].concat());
    assert_eq!(error_field(&talk.take_client(), b'M'), "invalid_text_representation");
    talk.client(&[parse("s", "select leak(id) from users"), sync()].concat());
    talk.server(&[message(b'1', b""), ready(b'I')].concat());
    talk.take_client();
    talk.client(&[bind("", "s", &[]), sync()].concat());
    talk.server(&[fails, ready(b'I')].concat());
    assert_eq!(error_field(&talk.take_client(), b'M'), "invalid_text_representation");
}

#[test]
fn describes_a_portal_again_when_its_name_is_bound_again() {
    let mut talk = Talk::session(MASKS);
    talk.client(&[parse("s", "select id, email from users"), bind("", "s", &[]), describe('P', ""), sync()].concat());
    talk.take_server();
    talk.client(&[bind("", "s", &[]), execute(""), sync()].concat());
    assert_eq!(tags(&talk.take_server()), "BDES");
}

#[test]
fn forgets_names_that_sql_may_have_given_to_something_else() {
    let mut talk = Talk::session(MASKS);
    talk.client(&[parse("ps", "select 1"), parse("other", "select 2"), sync()].concat());
    talk.server(&[message(b'1', b""), message(b'1', b""), ready(b'I')].concat());
    talk.client(&query("deallocate ps; prepare ps as select email as id from users"));
    talk.server(&[complete("DEALLOCATE"), complete("PREPARE"), ready(b'I')].concat());
    talk.asked.clear();
    talk.client(&[bind("", "other", &[]), execute(""), bind("", "ps", &[]), execute(""), sync()].concat());
    assert_eq!(talk.asked, ["select 2", ""], "nothing is known of the second");

    let mut talk = Talk::session(MASKS);
    talk.client(
        &[query("begin"), parse("", "select 1"), bind("c", "", &[]), parse("d", "declare c cursor for select 3")].concat(),
    );
    talk.client(&[query("close c"), bind("", "d", &[]), execute(""), execute("c")].concat());
    assert_eq!(talk.asked.last().map(String::as_str), Some(""), "a cursor that SQL declared");
}

#[test]
fn reads_the_catalog_anew_behind_a_change_of_the_schema() {
    let mut talk = Talk::session(MASKS);
    let view = "create or replace view v as select email as id from users";
    talk.client(&[query(view), query("select id from v")].concat());
    assert_eq!(talk.take_server(), query(view), "what follows is read with the new catalog");
    assert_eq!(talk.fetched.len(), 1);
    talk.server(&[complete("CREATE VIEW"), ready(b'I')].concat());
    assert_eq!(talk.fetched.iter().map(|query| query.fresh).collect::<Vec<_>>(), [false, true]);
    assert_eq!(talk.take_server(), query("select id from v"));

    talk.client(&[parse("", "alter table users rename id to number"), bind("", "", &[]), execute(""), sync()].concat());
    talk.server(&[complete("SELECT 0"), ready(b'I')].concat());
    talk.client(&query("select 1"));
    assert_eq!(tags(&talk.take_server()), "PBDES");
    let described = message(b'n', b"");
    talk.server(&[message(b'1', b""), message(b'2', b""), described, complete("ALTER TABLE"), ready(b'I')].concat());
    assert_eq!(talk.fetched.len(), 3);
    assert_eq!(talk.take_server(), query("select 1"));
}

#[test]
fn trusts_no_view_that_was_replaced_in_the_same_transaction() {
    const NOTES: &[(&str, u32, i16, u32, u16)] = &[("body", 16390, 1, 25, 0)];
    let mut talk = Talk::session(MASKS);
    let shown = |talk: &mut Talk| {
        talk.take_client();
        talk.client(&query("select body from notes"));
        talk.server(&[description(NOTES), row(&[Some(b"x")]), complete("SELECT 1"), ready(b'T')].concat());
        rows(&talk.take_client())
    };
    talk.client(&query("begin")).server(&[complete("BEGIN"), ready(b'T')].concat());
    assert_eq!(shown(&mut talk), [[cell(b"x")]]);
    talk.client(&query("create or replace view notes as select email as body from users"));
    talk.server(&[complete("CREATE VIEW"), ready(b'T')].concat());
    assert_ne!(shown(&mut talk), [[cell(b"x")]]);
    assert_eq!(talk.fetched.len(), 1, "what is not committed cannot be seen from outside");
    talk.client(&query("rollback")).server(&[complete("ROLLBACK"), ready(b'I')].concat());
    assert_eq!(talk.fetched.len(), 2);
    assert_eq!(shown(&mut talk), [[cell(b"x")]]);
}
