use std::path::PathBuf;

use super::{LoadErrors, SourceFile, load_sources, load_untested, read_files};
use crate::policy::{
    object::{DownstreamTls, MaskWith},
    testkit::{UPSTREAM, load, read},
};

fn errors(text: &str) -> Vec<(usize, usize, String)> {
    let LoadErrors(errors) = load(text).expect_err("it must not load");
    errors.into_iter().map(|error| (error.line, error.column, error.message)).collect()
}

/// The one error of a policy with this spec, after an upstream `db`.
fn refusal(spec: &str) -> String {
    let text = format!(
        "{UPSTREAM}apiVersion: weir/v1\nkind: Policy\nmetadata: {{name: p}}\nspec: {{workloads: [{{name: w}}], upstreams: [{{name: db}}], {spec}}}\n"
    );
    let errors = errors(&text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.into_iter().next().map(|(.., message)| message).unwrap_or_default()
}

fn object_refusal(kind: &str, spec: &str) -> String {
    let text = format!("apiVersion: weir/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n");
    let errors = errors(&text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.into_iter().next().map(|(.., message)| message).unwrap_or_default()
}

const TEN: &str = "\
apiVersion: weir/v1
kind: Upstream
metadata: {name: db}
spec:
  hosts: [10.2.0.5/16]
  protokol: postgres
---
apiVersion: weir/v1
kind: Policy
metadata: {name: p}
spec:
  workloads: [{unit: orders}]
  upstreams: [{name: dv}]
  mode: enforced
  rules:
    - {name: a, deny: {effects: [dorp]}}
    - {name: b, deny: {effects: [delete]}, when: \"!stmt.haswhere\"}
    - {name: c, hold: {effects: [delete]}, approval: {group: g, timeout: 10 minutes}}
    - {name: d, deny: {objects: [\"[a\"]}}
  mask:
    - {name: m, detectors: [secrets/high]}
";

#[test]
fn ten_mistakes_are_ten_errors_where_they_stand() {
    let places: Vec<(usize, usize)> = errors(TEN).iter().map(|(line, column, _)| (*line, *column)).collect();
    assert_eq!(places, [(5, 11), (6, 3), (12, 22), (13, 22), (14, 9), (16, 34), (17, 56), (18, 74), (19, 34), (21, 17)]);
}

#[test]
fn an_error_shows_its_line_and_what_was_meant() {
    let text = load(TEN).unwrap_err().to_string();
    assert!(text.contains("test.yaml:6:3: unknown key `protokol`"), "{text}");
    assert!(text.contains("6 |   protokol: postgres\n    |   ^^^^^^^^ did you mean `protocol`?"), "{text}");
    assert!(
        text.contains(
            "16 |     - {name: a, deny: {effects: [dorp]}}\n     |                                  ^^^^ did you mean `drop`?"
        ),
        "{text}"
    );
    assert!(text.ends_with("10 errors in 1 file"), "{text}");
}

#[test]
fn a_condition_in_a_block_is_pointed_at_in_its_block() {
    let text = format!(
        "{UPSTREAM}apiVersion: weir/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  workloads: [{{name: w}}]\n  rules:\n  - name: r\n    deny: {{}}\n    when: |\n      stmt.textLen == 'x'\n"
    );
    assert_eq!(errors(&text).first().map(|(line, column, _)| (*line, *column)), Some((15, 20)));
}

#[test]
fn errors_of_several_files_come_together() {
    let file = |name: &str| SourceFile { name: name.into(), text: "kind: Policy\n".into() };
    let LoadErrors(errors) = load_sources(&[file("a"), file("b")], &read, 1).unwrap_err();
    assert!(errors.iter().any(|error| &*error.file == "a") && errors.iter().any(|error| &*error.file == "b"));
}

#[test]
fn a_secret_in_a_policy_is_refused_and_never_shown() {
    for spec in [
        "{user: u, password: hunter2}",
        "{user: u, pasword: hunter2}",
        "{token: [hunter2]}",
        "{user: u, password: {value: hunter2}}",
        "{token: {env: hunter2-x}}",
        "hunter2",
        "{token: {file: /a}, x: 1}\n  hunter2: [",
        "{token: \"hunter2",
    ] {
        let text = format!("apiVersion: weir/v1\nkind: Credential\nmetadata: {{name: x}}\nspec: {spec}\n");
        let LoadErrors(errors) = load(&text).unwrap_err();
        let shown = format!("{} {}", LoadErrors(errors.clone()), serde_json::to_string(&errors).unwrap());
        assert!(!shown.contains("hunter2"), "{spec}: {shown}");
    }
    for document in [
        "apiVersion: weir/v1\nkind: Credential\nmetadata: {name: x}\npassword: hunter2\n",
        "apiVersion: weir/v1\nkind: Policy\nmetadata: {name: x}\nspec: {workloads: [{name: w}], inject: {credential: c, token: hunter2}}\n",
    ] {
        let shown = load(document).unwrap_err().to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let message = object_refusal("Credential", "{user: u, password: hunter2}");
    assert_eq!(message, "a secret does not belong in a policy file: use file, env, exec or systemd");
}

#[test]
fn refuses_what_this_version_does_not_do() {
    for spec in ["mask: [{name: m, detectors: [x]}]", "journal: {rows: masked}", "journal: {bodies: 64KiB}"] {
        assert!(refusal(spec).contains("not available in this version"), "{spec}");
    }
    let workloads = format!(
        "{UPSTREAM}apiVersion: weir/v1\nkind: Policy\nmetadata: {{name: p}}\nspec: {{workloads: [{{kubernetes: {{namespace: x}}}}]}}\n"
    );
    assert!(errors(&workloads)[0].2.contains("not available"));
    assert!(object_refusal("Upstream", "{hosts: [a], protocol: mysql}").contains("not available"));
    assert!(object_refusal("Credential", "{token: {vault: {path: a}}}").contains("not available"));
    assert!(load(&format!("{UPSTREAM}apiVersion: weir/v1\nkind: Policy\nmetadata: {{name: p}}\nspec: {{workloads: [{{name: w}}], journal: {{rows: none, bodies: none, statements: bounded}}}}\n")).is_ok());
}

#[test]
fn refuses_bad_rules() {
    for (rules, part) in [
        ("[]", "is empty"),
        ("[{name: r}]", "exactly one of"),
        ("[{name: r, deny: {effects: [drop]}, allow: {effects: [read]}}]", "exactly one of"),
        ("[{deny: {effects: [drop]}}]", "needs `name:`"),
        ("[{name: r, deny: {}}]", "matches nothing in particular"),
        ("[{name: r, deny: {effects: []}}]", "is empty"),
        ("[{name: r, deny: {effects: drop}}]", "must be a list"),
        ("[{name: r, deny: {effects: [drop], methods: [GET]}}]", "mixes fields"),
        ("[{name: r, deny: {effects: [drop]}, when: 'http.method == \"GET\"'}]", "would never hold"),
        ("[{name: r, deny: {effects: [drop]}, approval: {group: g, timeout: 1m}}]", "only a rule that holds"),
        ("[{name: r, hold: {effects: [drop]}, approval: {timeout: 1m}}]", "needs `group:`"),
        ("[{name: r, hold: {effects: [drop]}, approval: {group: g, timeout: 0s}}]", "not a duration"),
        ("[{name: r, hold: {effects: [drop]}, approval: {group: g, timeout: 25h}}]", "not a duration"),
        ("[{name: r, allow: {effects: [read]}, message: x}]", "belongs to deny and hold"),
        ("[{name: default, deny: {effects: [drop]}}]", "choose another name"),
        ("[{name: r, deny: {effects: [drop]}}, {name: r, deny: {effects: [read]}}]", "two rules named"),
        ("[{name: r, deny: {objects: [a.b.c]}}]", "is not an object"),
        ("[{name: r, deny: {kinds: [tabel]}}]", "a kind of object cannot be"),
        ("[{name: r, deny: {methods: [get]}}]", "upper case"),
        ("[{name: r, deny: {paths: [v1]}}]", "does not start with"),
        ("[{name: r, deny: {hosts: ['http://a']}}]", "is not a host"),
        ("[{name: r, deny: {headers: {'a b': x}}}]", "not the name of a header"),
        ("[{name: r, deny: {efects: [drop]}}]", "unknown key `efects`"),
    ] {
        let message = refusal(&format!("rules: {rules}"));
        assert!(message.contains(part), "{rules}: {message}");
    }
}

#[test]
fn refuses_bad_masks_injections_and_selectors() {
    for (spec, part) in [
        ("mask: [{name: m}]", "a mask needs"),
        ("mask: [{name: m, columns: [users.password]}]", "schema.table.column"),
        ("mask: [{name: m, columns: ['a..b']}]", "empty part"),
        ("mask: [{name: m, jsonKeys: [a], with: last5}]", "with cannot be"),
        ("mask: [{name: m, jsonKeys: [a], with: {keepDomain: false}}]", "keepDomain cannot be"),
        ("mask: [{name: m, jsonKeys: [a]}, {name: m, jsonKeys: [b]}]", "two masks"),
        ("inject: {credential: nope}", "no Credential is named"),
        ("inject: {as: bearer}", "needs `credential:`"),
        ("unmatched: maybe", "unmatched cannot be"),
        ("unknown: 1", "unknown key"),
        ("mode: enforce, mode: observe", "given twice"),
        ("tests: [{proto: postgres, sql: x}]", "needs `expect:`"),
        ("tests: [{proto: postgres, expect: deny}]", "needs `sql:`"),
        ("tests: [{proto: http, method: GET, path: /, sql: x, expect: deny}]", "not part of a test"),
    ] {
        let message = refusal(spec);
        assert!(message.contains(part), "{spec}: {message}");
    }
}

#[test]
fn refuses_bad_upstreams_and_credentials() {
    for (kind, spec, part) in [
        ("Upstream", "{}", "needs `hosts:`"),
        ("Upstream", "{hosts: []}", "is empty"),
        ("Upstream", "{hosts: [10.0.0.300]}", "is not a host"),
        ("Upstream", "{hosts: ['db:5432']}", "is not a host"),
        ("Upstream", "{hosts: ['*.internal']}", "is not a host"),
        ("Upstream", "{hosts: [10.0.0.0/33]}", "is not a network"),
        ("Upstream", "{hosts: [a], ports: [0]}", "a port must be"),
        ("Upstream", "{hosts: [a], ports: ['80']}", "a port must be"),
        ("Upstream", "{hosts: [a], tls: {mode: verify}}", "tls mode cannot be"),
        ("Upstream", "{hosts: [a], tls: {ca: ca.pem}}", "absolute path"),
        ("Upstream", "{hosts: [a], tls: {mode: require, ca: /a}}", "verifies nothing"),
        ("Upstream", "{hosts: [a], downstream: {tls: maybe}}", "downstream tls cannot be"),
        ("Credential", "{}", "needs `user:`"),
        ("Credential", "{token: {file: a}}", "absolute path"),
        ("Credential", "{token: {file: /a/../b}}", "absolute path"),
        ("Credential", "{token: {exec: [cat]}}", "absolute path"),
        ("Credential", "{token: {systemd: a/b}}", "not a path"),
        ("Credential", "{token: {file: /a, env: B}}", "exactly one of"),
    ] {
        let message = object_refusal(kind, spec);
        assert!(message.contains(part), "{kind} {spec}: {message}");
    }
}

#[test]
fn refuses_an_injection_that_cannot_work() {
    let text = |protocol: &str, credential: &str, inject: &str| {
        format!(
            "apiVersion: weir/v1\nkind: Upstream\nmetadata: {{name: db}}\nspec: {{hosts: [a], protocol: {protocol}}}\n---\napiVersion: weir/v1\nkind: Credential\nmetadata: {{name: c}}\nspec: {credential}\n---\napiVersion: weir/v1\nkind: Policy\nmetadata: {{name: p}}\nspec: {{workloads: [{{name: w}}], upstreams: [{{name: db}}], inject: {inject}}}\n"
        )
    };
    let token = "{token: {file: /t}}";
    let login = "{user: u, password: {file: /p}}";
    assert!(errors(&text("postgres", token, "{credential: c}"))[0].2.contains("speaks postgres"));
    assert!(errors(&text("http", login, "{credential: c, as: bearer}"))[0].2.contains("only if it has a token"));
    assert!(errors(&text("http", token, "{credential: c, as: {header: Host}}"))[0].2.contains("framing"));
    assert!(load(&text("postgres", login, "{credential: c}")).is_ok());
    assert!(load(&text("http", token, "{credential: c, as: {header: X-Api-Key}}")).is_ok());
}

#[test]
fn refuses_two_objects_of_one_name_and_names_both() {
    let messages = errors(&format!("{UPSTREAM}{UPSTREAM}"));
    assert_eq!((messages[0].0, &*messages[0].2), (8, "another Upstream is named `db`: test.yaml:3"));
}

#[test]
fn a_policy_whose_own_test_fails_is_not_loaded() {
    let text = format!(
        "{UPSTREAM}apiVersion: weir/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  workloads: [{{name: w}}]\n  mode: observe\n  rules: [{{name: d, deny: {{effects: [drop]}}}}, {{name: h, hold: {{effects: [grant]}}}}]\n  tests:\n  - {{proto: postgres, sql: '[drop] t', expect: deny}}\n  - {{proto: postgres, sql: '[drop] t', expect: allow}}\n  - {{proto: postgres, sql: '[read] t', expect: deny}}\n  - {{proto: postgres, sql: '[grant] t', expect: hold}}\n"
    );
    let errors = errors(&text);
    assert_eq!(errors.iter().map(|(line, column, _)| (*line, *column)).collect::<Vec<_>>(), [(15, 5), (16, 5)]);
    assert_eq!(errors[0].2, "the policy's own test fails: expected allow, got deny by p/d: denied by rule p/d");
    assert_eq!(errors[1].2, "the policy's own test fails: expected deny, got allow because no rule names it");
}

#[test]
fn a_repeated_key_is_one_error() {
    assert!(refusal("mask: [{name: m, name: m, jsonKeys: [a]}]").contains("given twice"));
}

/// The example of the design, without what this version does not do.
#[test]
fn the_whole_language_loads() {
    let text = r#"
apiVersion: weir/v1
kind: Upstream
metadata: {name: orders-db, labels: {env: prod}}
spec:
  hosts: [db.internal, 10.2.0.0/16]
  ports: [5432]
  protocol: postgres
  tls: {mode: verify-full, ca: /etc/weir/db-ca.pem, serverName: db}
  downstream: {tls: decline}
---
apiVersion: weir/v1
kind: Credential
metadata: {name: orders-db-app}
spec:
  user: orders_rw
  password: {file: /etc/weir/secrets/orders-db}
---
apiVersion: weir/v1
kind: Policy
metadata: {name: orders}
spec:
  workloads:
    - {unit: orders.service}
    - {cgroup: "/weir.slice/**"}
    - {exe: /usr/bin/psql, uid: 1000}
    - {name: demo}
  upstreams: [{labels: {env: prod}}]
  unmatched: deny
  mode: enforce
  onUnreadable: deny
  inject: {credential: orders-db-app}
  rules:
    - {name: no-drop, deny: {effects: [drop, truncate]}, message: "Destructive DDL needs a change ticket."}
    - name: wide-writes
      hold: {effects: [delete, update]}
      when: "!stmt.hasWhere"
      approval: {group: oncall-dba, timeout: 10m}
    - {name: internal-api, allow: {methods: [GET], paths: ["/v1/**"]}}
  mask:
    - {name: pw, columns: ["*.users.password"], with: "null"}
    - {name: pii, columns: ["public.customers.{email,phone}"], with: {keepDomain: true}}
    - {name: last, columns: ["*.*.iban"], with: last4}
    - {name: plain, columns: ["*.*.note"], with: null}
    - {name: constant, columns: ["*.*.name"], with: {constant: "someone"}}
    - {name: api, jsonKeys: [api_key, password, token], headers: [Authorization, Set-Cookie]}
  journal: {statements: bounded}
  tests:
    - {proto: postgres, sql: "do $$begin execute 'drop'||' table x'; end$$", expect: deny}
    - {proto: postgres, sql: "[read] t", expect: allow}
    - {proto: postgres, sql: "[delete] t !where", expect: hold}
    - {proto: http, method: POST, path: /v1/x, expect: deny}
"#;
    let loaded = load(text).unwrap_or_else(|errors| panic!("{errors}"));
    let policy = &loaded.set.policies[0].spec;
    let with: Vec<&MaskWith> = policy.masks.iter().map(|mask| &mask.with).collect();
    let constant = MaskWith::Constant("someone".into());
    assert_eq!(with, [&MaskWith::Null, &MaskWith::KeepDomain, &MaskWith::Last4, &MaskWith::Null, &constant, &MaskWith::Redact]);
    assert_eq!(policy.masks[5].headers, ["authorization", "set-cookie"]);
    assert!(policy.masks[1].columns[0].column.matcher.is_match("phone"));
    assert_eq!(policy.rules[1].approval.as_ref().unwrap().timeout.as_secs(), 600);
    let upstream = &loaded.set.upstreams[0];
    assert_eq!((upstream.downstream_tls, upstream.tls.server_name.as_deref()), (DownstreamTls::Decline, Some("db")));
}

#[test]
fn warns_about_what_is_probably_not_meant() {
    let text = format!(
        "{UPSTREAM}apiVersion: weir/v1\nkind: Policy\nmetadata: {{name: p}}\nspec: {{workloads: [{{uid: 7}}], rules: [{{name: h, hold: {{effects: [drop]}}}}]}}\n"
    );
    let warnings: Vec<String> = load(&text).unwrap().warnings.into_iter().map(|warning| warning.message).collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(
        warnings[0].contains("no policy names upstream")
            && warnings[1].contains("designates no workload")
            && warnings[2].contains("it denies")
    );
}

#[test]
fn an_alias_bomb_is_refused_quickly() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let prior = format!("*a{}", n - 1);
        text += &format!("a{n}: &a{n} [{}]\n", [prior.as_str(); 10].join(", "));
    }
    assert!(errors(&text).iter().any(|(.., message)| message.contains("aliases expanded")));
}

#[test]
fn nesting_is_bounded_at_its_limit() {
    let nested = |depth: usize| format!("a: {}{}", "[".repeat(depth), "]".repeat(depth));
    let deep = |text: &str| errors(text).iter().any(|(.., message)| message.contains("nest") || message.contains("recursion"));
    assert!(!deep(&nested(31)), "{:?}", errors(&nested(31)));
    assert!(deep(&nested(32)), "{:?}", errors(&nested(32)));
    assert!(deep(&nested(100_000)));
    assert!(deep(&format!("{}x", "- ".repeat(10_000))));
}

#[test]
fn documents_are_bounded_at_their_limit() {
    let many = |count: usize| UPSTREAM.replace("{name: db}", "{name: dbNUMBER}").repeat(count);
    let numbered = |count: usize| (0..count).fold(many(count), |text, n| text.replacen("NUMBER", &n.to_string(), 1));
    // Each ends with `---`, which begins one more, empty document.
    assert!(load(&numbered(255)).is_ok());
    assert!(errors(&numbered(256)).iter().any(|(.., message)| message.contains("documents")));
}

#[test]
fn an_alias_inside_its_own_anchor_is_refused() {
    assert!(!errors("a: &a [*a]\n").is_empty());
    assert!(errors("<<: {a: 1}\n").iter().any(|(.., message)| message.contains("merge keys")));
    assert!(errors("apiVersion: !x weir/v1\n").iter().any(|(.., message)| message.contains("tags")));
}

#[test]
fn arbitrary_text_never_panics() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let alphabet: Vec<char> = "{}[]:,-#&*!|>'\"%@`?\n\t \\abcé\u{feff}\u{0}0.~<".chars().collect();
    for _ in 0..3000 {
        let mut text: Vec<char> = if next(3) == 0 { Vec::new() } else { TEN.chars().collect() };
        for _ in 0..=next(12) {
            let at = next(text.len() + 1);
            match next(3) {
                0 => text.insert(at, alphabet[next(alphabet.len())]),
                1 if at < text.len() => drop(text.remove(at)),
                _ => text.truncate(text.len() - next(text.len() + 1) / 4),
            }
        }
        if let Err(errors) = load(&text.into_iter().collect::<String>()) {
            let _ = errors.to_string();
        }
    }
}

#[test]
fn reads_files_in_name_order_and_refuses_what_is_not_one() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (name, text) in [("b.yml", "b"), ("a.yaml", "a"), (".hidden.yaml", "x"), ("c.txt", "x")] {
        std::fs::write(at(name), text).unwrap();
    }
    std::fs::create_dir(at("d.yaml")).unwrap();
    let texts: Vec<String> = read_files(&[directory.path().to_owned()]).unwrap().into_iter().map(|file| file.text).collect();
    assert_eq!(texts, ["a", "b"]);
    let failure = |path: PathBuf| read_files(&[path]).unwrap_err().0[0].message.clone();
    assert!(failure(at("none")).contains("cannot be read"));
    assert!(failure(at("d.yaml")).contains("holds no"));
    std::fs::write(at("big.yaml"), vec![b'a'; 1024 * 1024 + 1]).unwrap();
    assert!(failure(at("big.yaml")).contains("larger"));
    std::fs::write(at("big.yaml"), vec![b'a'; 1024 * 1024]).unwrap();
    assert!(read_files(&[at("big.yaml")]).is_ok());
    std::fs::write(at("bytes.yaml"), [0xff, 0xfe]).unwrap();
    assert!(failure(at("bytes.yaml")).contains("UTF-8"));
    assert!(failure("/dev/null".into()).contains("regular"));
    assert!(!read_files(&[]).unwrap_err().0.is_empty());
}

#[test]
fn the_shipped_policies_are_valid() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../policies");
    load_untested(&[root.join("examples")]).unwrap_or_else(|errors| panic!("{errors}"));
    for pack in ["no-destructive-ddl", "writes-need-where", "read-only"] {
        load_untested(&[root.join("packs").join(format!("{pack}.yaml"))]).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn a_failed_reload_leaves_the_last_good_set() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.yaml");
    std::fs::write(&path, UPSTREAM).unwrap();
    let paths = [path.clone()];
    let first = super::load(&paths, &read, 7).unwrap().set;
    std::fs::write(&path, "kind: Policy\n").unwrap();
    assert!(super::load(&paths, &read, first.generation + 1).is_err());
    assert_eq!((first.generation, first.upstreams.len()), (7, 1));
    std::fs::write(&path, format!("{UPSTREAM}# changed\n")).unwrap();
    let second = super::load(&paths, &read, first.generation + 1).unwrap().set;
    assert!(second.generation == 8 && second.digest != first.digest);
}
