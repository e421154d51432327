use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use cel::Value;

use super::{Facts, Fault, compile};
use crate::{
    flow::{Login, Object, Protocol, Request, Workload},
    policy::testkit::{http, sql},
};

fn ask(text: &str, request: &Request) -> Result<bool, Fault> {
    let workload = Workload { uid: 1000, exe: Some("/usr/bin/psql".into()), ..Workload::default() };
    let facts = Facts {
        workload: &workload,
        protocol: Protocol::Http,
        upstream: "api",
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 80,
    };
    compile(text).unwrap_or_else(|finding| panic!("{text}: {finding:?}")).holds(request, &facts)
}

fn refusal(text: &str) -> String {
    match compile(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(finding) => finding.message,
    }
}

#[test]
fn holds_on_statements() {
    let request = sql("[delete read] hr.salaries f() !where");
    for text in [
        "!stmt.hasWhere",
        "'delete' in stmt.effects",
        "!('drop' in stmt.effects)",
        "stmt.effects.exists(e, e == 'read')",
        "stmt.effects.all(e, e in ['read', 'delete'])",
        "stmt.objects.exists(o, o.schema == 'hr' && o.name.startsWith('sal') && !o.write)",
        "stmt.objects.exists(o, o.kind == 'function')",
        "!stmt.objects.all(o, o.kind == 'table')",
        "stmt.objects.exists(o, stmt.objects.exists(p, p.kind != o.kind))",
        "size(stmt.objects) == 2 && stmt.effects.size() >= 2",
        "stmt.count == 1 && stmt.textLen < 100 && stmt.readable",
        "stmt.hasWhere ? false : true",
        "(stmt.textLen > 1000000) || stmt.objects.exists(o, o.name.matches('^sal.*s$'))",
    ] {
        assert_eq!(ask(text, &request), Ok(true), "{text}");
    }
}

/// The interpreter that we do not use: what our evaluator says must be what CEL says.
fn interpreted(text: &str, request: &Request) -> Option<bool> {
    let Request::Statement(statement) = request else { panic!() };
    let map = |entries: Vec<(&str, Value)>| {
        Value::from(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<HashMap<String, Value>>())
    };
    let list = |values: Vec<Value>| Value::List(Arc::new(values));
    let word = |word: &str| Value::from(word.to_owned());
    let object = |object: &Object| {
        let kind = format!("{:?}", object.kind).to_lowercase();
        let schema = object.schema.as_deref().unwrap_or("");
        map(vec![
            ("kind", word(&kind)),
            ("schema", word(schema)),
            ("name", word(&object.name)),
            ("write", Value::Bool(object.write)),
        ])
    };
    let mut context = cel::Context::default();
    context.add_variable_from_value(
        "stmt",
        map(vec![
            ("effects", list(statement.effects.iter().map(|effect| word(effect.word())).collect())),
            ("objects", list(statement.objects.iter().map(object).collect())),
            ("hasWhere", Value::Bool(statement.has_where)),
            ("readable", Value::Bool(statement.readable)),
            ("whereTautology", Value::Bool(statement.where_tautology)),
            ("textLen", Value::Int(i64::try_from(statement.text.len()).unwrap())),
            ("count", Value::Int(i64::from(statement.count))),
        ]),
    );
    match cel::Program::compile(text).unwrap().execute(&context) {
        Ok(Value::Bool(value)) => Some(value),
        _ => None,
    }
}

#[test]
fn says_what_the_interpreter_says() {
    let requests = [sql("[]"), sql("[delete read] hr.salaries f() !where"), sql("[drop] a.b c.d e !real"), sql("garbage")];
    let terms = [
        "stmt.hasWhere",
        "!stmt.readable",
        "stmt.whereTautology == false",
        "'delete' in stmt.effects",
        "stmt.effects.exists(e, e == 'read' || e > 'drop')",
        "stmt.effects.all(e, e in ['read', 'delete'])",
        "stmt.objects.exists(o, o.schema == 'hr' && o.name.startsWith('sal'))",
        "stmt.objects.all(o, o.kind == 'table' || o.write)",
        "stmt.objects.exists(o, stmt.objects.exists(p, p.name < o.name))",
        "size(stmt.objects) >= 2",
        "stmt.textLen > 10 ? stmt.count == 1 : stmt.count != 1",
        "stmt.objects.exists(o, o.name.matches('^[a-e]$') || o.name.contains('ala') || o.schema.endsWith('r'))",
    ];
    for request in &requests {
        for (a, b) in terms.iter().zip(terms.iter().cycle().skip(5)) {
            for text in [format!("{a} && {b}"), format!("{a} || !({b})"), format!("({a}) == ({b})")] {
                assert_eq!(ask(&text, request).ok(), interpreted(&text, request), "{text} on {request:?}");
            }
        }
    }
}

#[test]
fn holds_on_http_and_sessions() {
    let request = http("GET", "/v1/a?x=1", &[("x-a", "1"), ("x-a", "2")]);
    for text in [
        "http.method == 'GET' && http.path == '/v1/a' && http.query == 'x=1'",
        "http.host.endsWith('.internal')",
        "'X-A' in http.headers && !('b' in http.headers)",
        "http.headers['x-a'] == '1, 2'",
        "http.path.contains('v1')",
        "session.protocol == 'http' && session.upstream == 'api' && session.port == 80 && session.address == '127.0.0.1'",
        "workload.uid == 1000 && workload.exe.endsWith('psql') && workload.unit == ''",
        "workload.uid in [1, 1000] && workload.uid != -1",
    ] {
        assert_eq!(ask(text, &request), Ok(true), "{text}");
    }
}

#[test]
fn holds_on_logins() {
    let request = Request::Login(Login { user: "ann".into(), replication: true, ..Login::default() });
    assert_eq!(
        ask("login.user == 'ann' && login.database == 'ann' && login.application == '' && login.replication", &request),
        Ok(true)
    );
}

#[test]
fn a_missing_header_is_a_fault_unless_the_other_side_settles_it() {
    let request = http("GET", "/", &[]);
    assert_eq!(ask("http.headers['x'] == 'a'", &request), Err(Fault));
    assert_eq!(ask("http.headers['x'] == 'a' || true", &request), Ok(true));
    assert_eq!(ask("http.headers['x'] == 'a' && false", &request), Ok(false));
    assert_eq!(ask("http.headers['x'] == 'a' && true", &request), Err(Fault));
    assert_eq!(ask("'x' in http.headers && http.headers['x'] == 'a'", &request), Ok(false));
}

#[test]
fn work_is_bounded() {
    let many: String = (0..200).map(|n| format!(" t{n}")).collect();
    let request = sql(&format!("[read]{many}"));
    assert_eq!(ask("stmt.objects.exists(o, stmt.objects.exists(p, p.name == o.name))", &request), Ok(true));
    assert_eq!(ask("stmt.objects.exists(o, stmt.objects.exists(p, p.name == 'x' && o.name == 'y'))", &request), Err(Fault));
    let many: String = (0..2000).map(|n| format!(" t{n}")).collect();
    assert_eq!(ask("stmt.objects.exists(o, o.name == 't0')", &sql(&format!("[read]{many}"))), Err(Fault));
}

#[test]
fn refuses_what_does_not_type_check() {
    for (text, part) in [
        ("stmt.haswhere", "no field `haswhere`"),
        ("stm.hasWhere", "unknown name `stm`"),
        ("stmt", "has fields"),
        ("stmt.textLen == 'x'", "cannot be compared"),
        ("stmt.textLen", "must be true or false"),
        ("stmt.effects == 'drop'", "cannot be compared"),
        ("'dorp' in stmt.effects", "not an effect"),
        ("stmt.effects.exists(e, e == 'dorp')", "not an effect"),
        ("stmt.objects.exists(o, o.kind == 'tabel')", "not a kind"),
        ("stmt.objects.exists(o, o.kind in ['table', 'tabel'])", "not a kind"),
        ("stmt.objects.exists(o, o.owner == 'x')", "no field `owner`"),
        ("stmt.objects.exists(o, o.name)", "must be true or false"),
        ("stmt.objects.map(o, o.name) == []", "only exists() and all()"),
        ("stmt.objects.filter(o, o.write).size() > 0", "only exists() and all()"),
        ("stmt.hasWhere && http.method == 'GET'", "no request is both"),
        ("1 + 1 == 2", "arithmetic"),
        ("1.5 < 2.0", "literals"),
        ("has(stmt.hasWhere)", "has()"),
        ("http.path.matches(http.host)", "written out"),
        ("http.path.matches('(')", "not a valid pattern"),
        ("http.path.lower() == 'x'", "unknown function"),
        ("http.path.startsWith(1)", "must be text"),
        ("http.path['x'] == ''", "only http.headers"),
        ("'a' in 'abc'", "looks into"),
        ("1 in ['a']", "never in"),
        ("!stmt.textLen", "must be true or false"),
        ("stmt.hasWhere &&", "not a CEL expression"),
        ("", "not a CEL expression"),
        ("{'a': 1} == {'a': 1}", "not available"),
        ("stmt.hasWhere > true", "cannot be compared"),
        ("[1, 'a'] == [1]", "either text or numbers"),
    ] {
        let message = refusal(text);
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn points_at_the_character() {
    let finding = compile("stmt.hasWhere || stmt.textlen > 1").unwrap_err();
    assert_eq!(finding.offset, 21, "{finding:?}");
}

#[test]
fn refuses_deep_and_long_expressions_without_falling_over() {
    for text in ["(".repeat(4000), format!("{}true{}", "(".repeat(1500), ")".repeat(1500)), "[".repeat(2000)] {
        assert!(compile(&text).is_err());
    }
    assert!(refusal(&" ".repeat(5000)).contains("at most"));
    assert!(compile(&["true"; 300].join(" && ")).is_ok());
}
