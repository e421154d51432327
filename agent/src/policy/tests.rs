use std::net::IpAddr;

use super::{
    testkit::{UPSTREAM, allowed, denied, flow, flow_of, http, load, permit, set, sql, workload},
    *,
};
use crate::flow::{Flow, Login, OrigDst, Protocol, Request, Workload};

fn resolved(names: &[(&str, &[&str])]) -> ResolvedHosts {
    let addresses = |list: &[&str]| list.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect();
    names.iter().map(|(name, list)| (Arc::from(*name), addresses(list))).collect()
}

fn admit(set: &PolicySet, flow: &Flow) -> Result<Permit, String> {
    set.admit(flow, &resolved(&[])).map_err(|denied| denied.rule.to_string())
}

// Rules on SQL.

#[test]
fn denies_a_named_effect_and_nothing_else() {
    let set = set(&["rules: [{name: no-drop, deny: {effects: [drop, truncate]}}]"]);
    assert_eq!(denied(&set, &sql("[drop] t")).as_deref(), Some("p0/no-drop"));
    assert_eq!(denied(&set, &sql("[read truncate] t")).as_deref(), Some("p0/no-drop"));
    assert_eq!(denied(&set, &sql("[read] t")), None);
    assert_eq!(denied(&set, &sql("[]")), None);
}

#[test]
fn denies_an_object_in_an_unnamed_schema() {
    let set = set(&["rules: [{name: r, deny: {objects: [hr.salaries]}}]"]);
    assert!(denied(&set, &sql("[read] hr.salaries")).is_some());
    assert!(denied(&set, &sql("[read] salaries")).is_some(), "the search path may say hr");
    assert!(denied(&set, &sql("[read] HR.Salaries")).is_some(), "quoting does not help");
    assert!(denied(&set, &sql("[read] public.salaries")).is_none());
}

#[test]
fn allows_no_object_in_an_unnamed_schema() {
    let set = set(&["rules: [{name: r, allow: {effects: [read], objects: ['public.*']}}]"]);
    assert!(denied(&set, &sql("[read] public.orders")).is_none());
    assert_eq!(denied(&set, &sql("[read] orders")).as_deref(), Some("p0/default"));
    assert!(denied(&set, &sql("[read] public.orders hr.salaries")).is_some(), "all objects must be covered");
}

#[test]
fn an_any_schema_covers_an_unnamed_one() {
    let set = set(&["rules: [{name: r, allow: {objects: ['*.orders']}}]"]);
    assert!(denied(&set, &sql("[read] orders")).is_none());
    assert!(denied(&set, &sql("[read] other")).is_some());
}

#[test]
fn deny_needs_effect_and_object_allow_needs_all_effects() {
    let deny = set(&["rules: [{name: r, deny: {effects: [delete], objects: [orders]}}]"]);
    assert!(denied(&deny, &sql("[delete] orders")).is_some());
    assert!(denied(&deny, &sql("[read] orders")).is_none());
    assert!(denied(&deny, &sql("[delete] other")).is_none());
    let allow = set(&["rules: [{name: r, allow: {effects: [read, insert]}}]"]);
    assert!(denied(&allow, &sql("[read insert] t")).is_none());
    assert!(denied(&allow, &sql("[read delete] t")).is_some());
    assert!(denied(&allow, &sql("[]")).is_none(), "BEGIN has no effect");
}

#[test]
fn kinds_and_objects_are_of_the_same_object() {
    let set = set(&["rules: [{name: r, deny: {kinds: [function], objects: ['pg_*']}}]"]);
    assert!(denied(&set, &sql("[read] pg_sleep()")).is_some());
    assert!(denied(&set, &sql("[read] pg_class f()")).is_none());
}

#[test]
fn an_allow_of_objects_does_not_cover_effects_without_objects() {
    let set = set(&["onUnreadable: allow, rules: [{name: r, allow: {objects: ['*']}}]"]);
    assert!(denied(&set, &sql("[exec-code]")).is_some());
    assert!(denied(&set, &sql("[]")).is_none());
}

// What cannot be read.

#[test]
fn denies_what_cannot_be_read_and_says_so() {
    let set = set(&["rules: [{name: r, deny: {effects: [drop]}}]"]);
    assert_eq!(denied(&set, &sql("garbage")).as_deref(), Some("p0/onUnreadable"));
    assert_eq!(denied(&set, &sql("[exec-code]")).as_deref(), Some("p0/onUnreadable"));
}

#[test]
fn reads_on_unreadable() {
    assert!(denied(&set(&["onUnreadable: allow"]), &sql("garbage")).is_none());
    assert!(denied(&set(&["onUnreadable: hold"]), &sql("garbage")).is_some());
    let explicit = set(&["onUnreadable: allow, rules: [{name: r, deny: {effects: [unreadable]}}]"]);
    assert_eq!(denied(&explicit, &sql("garbage")).as_deref(), Some("p0/r"));
    let named = set(&["rules: [{name: r, allow: {effects: [read, exec-code]}}]"]);
    assert!(denied(&named, &sql("[exec-code]")).is_none(), "the operator said it in so many words");
    assert!(denied(&named, &sql("garbage")).is_some());
}

#[test]
fn a_stream_does_not_escape_rules_or_masks() {
    assert!(denied(&set(&["unmatched: deny"]), &Request::Stream).is_none());
    for spec in ["rules: [{name: r, deny: {effects: [drop]}}]", "mask: [{name: m, columns: ['*.*.x']}]"] {
        assert_eq!(denied(&set(&[spec]), &Request::Stream).as_deref(), Some("p0/onUnreadable"), "{spec}");
    }
    assert!(denied(&set(&["onUnreadable: allow, rules: [{name: r, deny: {effects: [drop]}}]"]), &Request::Stream).is_none());
}

#[test]
fn a_replication_connection_does_not_escape_rules_or_masks() {
    let login = Request::Login(Login { user: "u".into(), replication: true, ..Login::default() });
    assert!(denied(&set(&["unmatched: deny"]), &login).is_none());
    let masking = "mask: [{name: m, columns: ['*.*.x']}]";
    assert_eq!(denied(&set(&[masking]), &login).as_deref(), Some("p0/onUnreadable"));
    assert!(denied(&set(&[&format!("onUnreadable: allow, {masking}")]), &login).is_none());
}

// HTTP.

#[test]
fn allows_a_path_only_if_both_readings_match() {
    let set = set(&["rules: [{name: r, allow: {methods: [GET], paths: ['/v1/**']}}]"]);
    assert!(denied(&set, &http("GET", "/v1/a/b", &[])).is_none());
    assert!(denied(&set, &http("GET", "/v1/../admin", &[])).is_some());
    assert!(denied(&set, &http("GET", "/x/../v1/a", &[])).is_some());
    assert!(denied(&set, &http("GET", "/v1/..;/admin", &[])).is_some());
    assert!(denied(&set, &http("GET", "/v1/%252e%252e/admin", &[])).is_some());
    assert!(denied(&set, &http("GET", "/V1/a", &[])).is_some());
    assert!(denied(&set, &http("POST", "/v1/a", &[])).is_some());
}

#[test]
fn denies_a_path_if_either_reading_matches() {
    let set = set(&["rules: [{name: r, deny: {paths: ['/admin/**']}}]"]);
    for path in [
        "/admin/x",
        "/admin",
        "/a/../admin/x",
        "/%61dmin/x",
        "//admin//x",
        "/admin/../x",
        "/ADMIN/x",
        "/admin;x=1/y",
        "/x/..;/admin/y",
        "/%2561dmin/y",
        "/admin%00/y",
        "/admin./y",
        "/admin%20/y",
        "/%u0061dmin/y",
    ] {
        assert!(denied(&set, &http("GET", path, &[])).is_some(), "{path}");
    }
    assert!(denied(&set, &http("GET", "/administrator", &[])).is_none());
}

#[test]
fn a_repeated_header_counts_against_the_request() {
    let deny = set(&["rules: [{name: r, deny: {headers: {X-Mode: 'debug*'}}}]"]);
    assert!(denied(&deny, &http("GET", "/", &[("x-mode", "a"), ("x-mode", "debug2")])).is_some());
    assert!(denied(&deny, &http("GET", "/", &[])).is_none());
    let allow = set(&["rules: [{name: r, allow: {headers: {x-mode: safe}}}]"]);
    assert!(denied(&allow, &http("GET", "/", &[("x-mode", "safe")])).is_none());
    assert!(denied(&allow, &http("GET", "/", &[("x-mode", "safe"), ("x-mode", "x")])).is_some());
    assert!(denied(&allow, &http("GET", "/", &[])).is_some());
}

#[test]
fn methods_in_another_case_are_denied_and_not_allowed() {
    assert!(denied(&set(&["rules: [{name: r, deny: {methods: [DELETE]}}]"]), &http("delete", "/", &[])).is_some());
    assert!(denied(&set(&["rules: [{name: r, allow: {methods: [GET]}}]"]), &http("get", "/", &[])).is_some());
}

#[test]
fn a_default_concerns_only_its_kind_of_request() {
    let set = set(&["rules: [{name: r, allow: {methods: [GET]}}]"]);
    assert!(denied(&set, &sql("[delete] t")).is_none());
    assert!(denied(&set, &http("POST", "/", &[])).is_some());
}

#[test]
fn judges_logins_by_user_and_database() {
    let set = set(&["rules: [{name: r, deny: {users: ['admin*'], databases: [postgres]}}]"]);
    let login = |user: &str, database: Option<&str>| {
        Request::Login(Login { user: user.into(), database: database.map(str::to_owned), ..Login::default() })
    };
    assert!(denied(&set, &login("admin1", Some("postgres"))).is_some());
    assert!(denied(&set, &login("admin1", Some("app"))).is_none());
    assert!(denied(&set, &login("ADMIN", Some("Postgres"))).is_some());
}

// Combination and modes.

#[test]
fn deny_beats_hold_beats_allow() {
    let rules = "rules: [{name: a, allow: {effects: [drop, delete]}}, {name: h, hold: {effects: [drop, delete]}}, {name: d, deny: {effects: [drop]}}]";
    let set = set(&[rules]);
    assert_eq!(denied(&set, &sql("[drop]")).as_deref(), Some("p0/d"));
    assert_eq!(denied(&set, &sql("[delete]")).as_deref(), Some("p0/h"));
}

#[test]
fn a_hold_denies_and_names_the_missing_desk() {
    let set = set(&["rules: [{name: h, hold: {effects: [drop]}, approval: {group: dba, timeout: 10m}, message: Ask first.}]"]);
    let Verdict::Deny(denied) = set.decide(&permit(&set), &sql("[drop]")) else { panic!() };
    assert!(denied.message.starts_with("Ask first.") && denied.message.contains("no approval desk"), "{}", denied.message);
}

#[test]
fn any_policy_may_deny() {
    let set = set(&["rules: [{name: a, allow: {effects: [drop]}}]", "rules: [{name: d, deny: {effects: [drop]}}]"]);
    assert_eq!(denied(&set, &sql("[drop]")).as_deref(), Some("p1/d"));
    assert_eq!(denied(&set, &sql("[read]")).as_deref(), Some("p0/default"));
}

#[test]
fn names_the_rule_that_allowed() {
    let set = set(&["rules: [{name: a, allow: {effects: [read]}}]"]);
    assert_eq!(allowed(&set, &sql("[read]")).rule.as_deref(), Some("p0/a"));
}

#[test]
fn observing_denies_nothing_and_tells_what_it_would_have() {
    let set = set(&["mode: observe, rules: [{name: d, deny: {effects: [drop]}}]"]);
    assert_eq!(&*allowed(&set, &sql("[drop]")).would_deny.unwrap().rule, "p0/d");
    assert_eq!(allowed(&set, &sql("[read]")).would_deny, None);
}

#[test]
fn an_enforcing_policy_denies_beside_an_observing_one() {
    let set = set(&["mode: observe", "rules: [{name: d, deny: {effects: [drop]}}]"]);
    assert_eq!(denied(&set, &sql("[drop]")).as_deref(), Some("p1/d"));
}

#[test]
fn observing_policies_mask_nothing() {
    let set = set(&["mode: observe, mask: [{name: m, jsonKeys: [a]}]", "mask: [{name: m, jsonKeys: [b]}]"]);
    let names: Vec<String> = permit(&set).masks().map(|mask| mask.name.to_string()).collect();
    assert_eq!(names, ["p1/m"]);
}

#[test]
fn a_permit_of_another_generation_is_worth_nothing() {
    let (old, mut new) = (set(&["mode: enforce"]), set(&["mode: enforce"]));
    new.generation = 2;
    assert!(matches!(new.decide(&permit(&old), &sql("[read]")), Verdict::Deny(_)));
}

#[test]
fn the_strictest_durability_wins() {
    let relaxed = set(&["journal: {statements: bounded}"]);
    assert_eq!(permit(&relaxed).durability(), Durability::Bounded);
    let mixed = set(&["journal: {statements: bounded}", "mode: enforce"]);
    assert_eq!(permit(&mixed).durability(), Durability::Durable);
}

// Conditions inside rules.

#[test]
fn a_condition_that_cannot_be_evaluated_counts_against_the_request() {
    let deny = set(&["rules: [{name: r, deny: {methods: [GET]}, when: \"http.headers['x'] == 'a'\"}]"]);
    assert!(denied(&deny, &http("GET", "/", &[])).is_some());
    assert!(denied(&deny, &http("GET", "/", &[("x", "b")])).is_none());
    let allow = set(&["rules: [{name: r, allow: {methods: [GET]}, when: \"http.headers['x'] == 'a'\"}]"]);
    assert!(denied(&allow, &http("GET", "/", &[])).is_some());
    assert!(denied(&allow, &http("GET", "/", &[("x", "a")])).is_none());
}

#[test]
fn a_condition_alone_makes_a_rule() {
    let set = set(&["rules: [{name: r, deny: {}, when: 'workload.uid == 1000'}]"]);
    assert!(denied(&set, &sql("[read]")).is_some() && denied(&set, &Request::Stream).is_some());
}

// Admission.

#[test]
fn refuses_a_workload_that_no_policy_names() {
    let set = set(&["mode: enforce"]);
    let other = Workload { name: Some("other".into()), ..workload() };
    assert_eq!(admit(&set, &flow_of(other, "10.0.0.1:5432")).unwrap_err(), "weir/unmatched");
}

#[test]
fn unmatched_denies_unless_every_policy_allows() {
    let there = flow("192.0.2.1:443");
    assert_eq!(admit(&set(&["mode: enforce"]), &there).unwrap_err(), "p0/unmatched");
    assert_eq!(admit(&set(&["unmatched: allow", "unmatched: deny"]), &there).unwrap_err(), "p1/unmatched");
    let permit = admit(&set(&["unmatched: allow"]), &there).unwrap();
    assert!(permit.policies().is_empty() && permit.inject().is_none());
    assert_eq!((permit.upstream().protocol, permit.upstream().tls.mode), (Some(Protocol::Tcp), object::TlsMode::Off));
}

#[test]
fn an_observing_policy_lets_the_unmatched_pass_and_says_so() {
    let set = set(&["mode: observe"]);
    let permit = admit(&set, &flow("192.0.2.1:443")).unwrap();
    let Verdict::Allow(allowed) = set.decide(&permit, &Request::Stream) else { panic!() };
    assert_eq!(&*allowed.would_deny.unwrap().rule, "p0/unmatched");
}

fn upstreams(list: &[(&str, &str)]) -> PolicySet {
    let mut text = String::new();
    let mut names = Vec::new();
    for (name, spec) in list {
        text += &format!("apiVersion: weir/v1\nkind: Upstream\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n");
        names.push(format!("{{name: {name}}}"));
    }
    text += &format!(
        "apiVersion: weir/v1\nkind: Policy\nmetadata: {{name: p}}\nspec: {{workloads: [{{name: w}}], upstreams: [{}]}}\n",
        names.join(", ")
    );
    load(&text).unwrap_or_else(|errors| panic!("{errors}")).set
}

fn reached(set: &PolicySet, dst: &str, names: &ResolvedHosts) -> Result<String, String> {
    set.admit(&flow(dst), names).map(|permit| permit.upstream().name.to_string()).map_err(|denied| denied.rule.to_string())
}

#[test]
fn the_most_specific_upstream_wins() {
    let set = upstreams(&[
        ("wide", "hosts: [10.0.0.0/8]"),
        ("narrow", "hosts: [10.2.0.0/16]"),
        ("named", "hosts: [db.internal]"),
        ("exact", "hosts: [10.2.0.9]"),
    ]);
    let names = resolved(&[("db.internal", &["10.2.0.7", "10.2.0.9"])]);
    assert_eq!(reached(&set, "10.9.0.1:1", &names).unwrap(), "wide");
    assert_eq!(reached(&set, "10.2.0.1:1", &names).unwrap(), "narrow");
    assert_eq!(reached(&set, "10.2.0.7:1", &names).unwrap(), "named");
    assert_eq!(reached(&set, "10.2.0.9:1", &names).unwrap(), "exact");
    assert_eq!(reached(&set, "[::ffff:10.2.0.9]:1", &names).unwrap(), "exact", "both spellings of an address are one");
}

#[test]
fn two_upstreams_that_are_equally_specific_are_ambiguous() {
    let set =
        upstreams(&[("a", "hosts: [10.0.0.0/8]"), ("b", "hosts: [10.0.0.0/8]"), ("c", "hosts: [10.0.0.0/8], ports: [5432]")]);
    assert_eq!(reached(&set, "10.0.0.1:80", &resolved(&[])).unwrap_err(), "weir/ambiguous");
    assert_eq!(reached(&set, "10.0.0.1:5432", &resolved(&[])).unwrap(), "c", "one that names the port is more specific");
}

#[test]
fn the_permit_knows_the_name_that_matched() {
    let set = upstreams(&[("a", "hosts: [10.0.0.0/8, DB.internal., other.internal], protocol: postgres")]);
    let names = resolved(&[("db.internal", &["192.0.2.7"])]);
    assert_eq!(set.host_names().map(|name| &**name).collect::<Vec<_>>(), ["db.internal", "other.internal"]);
    let permit = set.admit(&flow("192.0.2.7:5432"), &names).unwrap();
    assert_eq!(permit.host().map(|host| &**host), Some("db.internal"));
    assert!(set.admit(&flow("10.0.0.1:5432"), &names).unwrap().host().is_none());
    let hint = |dst: &str| set.protocol_hint(&workload(), OrigDst(dst.parse().unwrap()), &names);
    assert_eq!(hint("192.0.2.7:5432"), Some(Protocol::Postgres));
    assert_eq!(hint("198.51.100.1:1"), None, "a refusal is spoken in the client's own protocol");
    let stranger = Workload { uid: 1, ..Workload::default() };
    let hint = set.protocol_hint(&stranger, OrigDst("192.0.2.7:5432".parse().unwrap()), &names);
    assert_eq!(hint, None, "also to a workload that no policy names");
}

const INJECTING: &str = "apiVersion: weir/v1\nkind: Credential\nmetadata: {name: NAME}\nspec: {token: {env: NAME}}\n---\n";

#[test]
fn two_different_credentials_deny_the_flow() {
    let text = |second: &str| {
        format!(
            "{UPSTREAM}{}{}apiVersion: weir/v1\nkind: Policy\nmetadata: {{name: p}}\nspec: {{workloads: [{{name: w}}], upstreams: [{{name: db}}], inject: {{credential: a}}}}\n---\napiVersion: weir/v1\nkind: Policy\nmetadata: {{name: q}}\nspec: {{workloads: [{{name: w}}], upstreams: [{{name: db}}], inject: {{credential: {second}}}}}\n",
            INJECTING.replace("NAME", "a"),
            INJECTING.replace("NAME", "b"),
        )
    };
    assert_eq!(admit(&load(&text("b")).unwrap().set, &flow("10.0.0.1:1")).unwrap_err(), "weir/ambiguous");
    assert!(admit(&load(&text("a")).unwrap().set, &flow("10.0.0.1:1")).unwrap().inject().is_some());
}

#[test]
fn a_wider_upstream_brings_its_rules_but_not_its_credential() {
    let text = format!(
        "{UPSTREAM}apiVersion: weir/v1\nkind: Upstream\nmetadata: {{name: net}}\nspec: {{hosts: [10.0.0.0/8]}}\n---\n{}apiVersion: weir/v1\nkind: Policy\nmetadata: {{name: near}}\nspec: {{workloads: [{{name: w}}], upstreams: [{{name: db}}]}}\n---\napiVersion: weir/v1\nkind: Policy\nmetadata: {{name: far}}\nspec: {{workloads: [{{name: w}}], upstreams: [{{name: net}}], inject: {{credential: a}}, rules: [{{name: d, deny: {{effects: [drop]}}}}]}}\n",
        INJECTING.replace("NAME", "a")
    );
    let set = load(&text).unwrap().set;
    let permit = permit(&set);
    assert_eq!(&*permit.upstream().name, "db");
    assert!(permit.inject().is_none());
    assert_eq!(denied(&set, &sql("[drop]")).as_deref(), Some("far/d"));
}

#[test]
fn a_selector_needs_all_of_its_fields_and_knowledge_of_them() {
    let glob = pattern::glob("/weir.slice/*", pattern::Reading { path: true, ..Default::default() }).unwrap();
    let selector = object::WorkloadSelector { cgroup: Some(glob), uid: Some(7), ..Default::default() };
    let in_cgroup = |cgroup: &str, uid| selector.matches(&Workload { cgroup: cgroup.into(), uid, ..Workload::default() });
    assert!(in_cgroup("/weir.slice/a", 7));
    assert!(in_cgroup("/weir.slice/a/b/c", 7), "an ancestor matches");
    assert!(!in_cgroup("/weir.slice/a", 8));
    assert!(!in_cgroup("/weir.slice", 7) && !in_cgroup("", 7) && !in_cgroup("/", 7));
    assert!(!object::WorkloadSelector::default().matches(&workload()), "a selector without fields matches nothing");
    let exe = object::WorkloadSelector { exe: Some("/bin/psql".into()), ..Default::default() };
    assert!(!exe.matches(&Workload::default()), "an unknown exe does not match");
}

#[test]
fn gives_the_kernel_only_what_designates() {
    let text = format!(
        "{UPSTREAM}apiVersion: weir/v1\nkind: Policy\nmetadata: {{name: p}}\nspec: {{workloads: [{{name: w}}, {{uid: 7}}, {{unit: a.service, uid: 7}}], upstreams: [{{name: db}}]}}\n"
    );
    assert_eq!(load(&text).unwrap().set.selectors().count(), 2);
}
