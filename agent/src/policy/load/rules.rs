//! `rules:`.

use std::{collections::HashSet, sync::Arc};

use super::{
    fields::{self, Map, duration, list, short, start_of, text, word},
    policy::header_name,
    source::Reporter,
    tree::{Mark, Node, Span, Value as Yaml},
};
use crate::{
    flow::{Effect, ObjectKind, Reason},
    policy::{
        condition::{self, About, Condition, OBJECT_KINDS},
        decide::NO_DESK,
        pattern::{Pattern, Reading, split_dots},
        rule::{Action, Approval, HttpMatcher, LoginMatcher, Matcher, ObjectPattern, Rule, SqlMatcher},
        verdict::Denied,
    },
};

pub(in crate::policy) const RULE_KEYS: &[&str] = &["name", "deny", "hold", "allow", "when", "message", "approval"];
pub(in crate::policy) const SQL_KEYS: &[&str] = &["effects", "objects", "kinds"];
pub(in crate::policy) const HTTP_KEYS: &[&str] = &["methods", "hosts", "paths", "headers"];
pub(in crate::policy) const LOGIN_KEYS: &[&str] = &["users", "databases"];
pub(in crate::policy) const APPROVAL_KEYS: &[&str] = &["group", "timeout"];

pub(super) fn rules(reporter: &Reporter<'_>, node: &Node, policy: &str) -> Vec<Rule> {
    let mut names = HashSet::new();
    list(reporter, node, "rules").iter().filter_map(|node| rule(reporter, node, policy, &mut names)).collect()
}

fn rule(reporter: &Reporter<'_>, node: &Node, policy: &str, names: &mut HashSet<String>) -> Option<Rule> {
    let what = "a rule";
    let map = Map::read(reporter, node, what, RULE_KEYS)?;
    let name = map.require(reporter, what, "name", RULE_KEYS).and_then(|node| {
        let name = fields::name(reporter, node, "the name of a rule")?;
        if matches!(name, "default" | "onUnreadable" | "unmatched") {
            reporter.error(node.span, format!("`{name}` is what weir itself is called when it denies: choose another name"));
        } else if !names.insert(name.to_owned()) {
            reporter.error(node.span, format!("policy {policy} has two rules named `{name}`"));
        }
        Some(name)
    });
    let message = map.get("message").and_then(|node| message(reporter, node));
    let when = map.get("when").and_then(|node| when(reporter, node));
    let approval = map.get("approval").and_then(|node| approval(reporter, node));
    let actions = [("deny", Action::Deny), ("hold", Action::Hold), ("allow", Action::Allow)];
    let mut given = actions.iter().filter_map(|(key, action)| Some((*action, map.get(key)?)));
    let (Some((action, fields)), None) = (given.next(), given.next()) else {
        let misspelt = map.entries().any(|(key, ..)| !RULE_KEYS.contains(&key));
        if given.next().is_some() || !misspelt {
            reporter.error(start_of(node.span), "a rule has exactly one of `deny:`, `hold:` and `allow:`");
        }
        return None;
    };
    if let Some(span) = map.key_span("approval").filter(|_| action != Action::Hold) {
        reporter.error(span, "only a rule that holds has an approval");
    }
    if let Some(span) = map.key_span("message").filter(|_| action == Action::Allow) {
        reporter.error(span, "a rule that allows says nothing: `message:` belongs to deny and hold");
    }
    let matcher = matcher(reporter, fields, action, map.get("when").map(|node| (node, when.as_ref())));
    let name: Arc<str> = format!("{policy}/{}", name?).into();
    let message: Arc<str> = match (message, action) {
        (Some(message), Action::Hold) => format!("{message} ({NO_DESK})").into(),
        (Some(message), _) => message.into(),
        (None, Action::Hold) => format!("held by rule {name}: {NO_DESK}").into(),
        (None, _) => format!("denied by rule {name}").into(),
    };
    let denied = Denied { rule: Arc::clone(&name), message, reason: Reason::Denied };
    Some(Rule { name, action, matcher: matcher?, when, denied, approval })
}

/// One sentence for the client, on one line: it stands in headers and error messages.
fn message<'n>(reporter: &Reporter<'_>, node: &'n Node) -> Option<&'n str> {
    let written = text(reporter, node, "message")?.trim();
    if written.len() > MESSAGE_BYTES_MAX || written.contains(char::is_control) {
        reporter.error(node.span, format!("message must be one line of at most {MESSAGE_BYTES_MAX} bytes"));
        return None;
    }
    Some(written)
}

fn approval(reporter: &Reporter<'_>, node: &Node) -> Option<Approval> {
    let map = Map::read(reporter, node, "approval", APPROVAL_KEYS)?;
    let group = map.require(reporter, "approval", "group", APPROVAL_KEYS).and_then(|node| fields::name(reporter, node, "group"));
    let timeout =
        map.require(reporter, "approval", "timeout", APPROVAL_KEYS).and_then(|node| duration(reporter, node, "timeout"));
    Some(Approval { group: group?.to_owned(), timeout: timeout? })
}

/// `when` is the condition's node, and the condition if it could be read.
fn matcher(reporter: &Reporter<'_>, node: &Node, action: Action, when: Option<(&Node, Option<&Condition>)>) -> Option<Matcher> {
    let known: Vec<&str> = [SQL_KEYS, HTTP_KEYS, LOGIN_KEYS].concat();
    let map = Map::read(reporter, node, "a matcher", &known)?;
    let has = |keys: &[&str]| map.entries().any(|(key, ..)| keys.contains(&key));
    let matcher = match (has(SQL_KEYS), has(HTTP_KEYS), has(LOGIN_KEYS)) {
        (true, false, false) => Some(Matcher::Sql(sql(reporter, &map, action))),
        (false, true, false) => Some(Matcher::Http(http(reporter, &map, action))),
        (false, false, true) => Some(Matcher::Login(login(reporter, &map, action))),
        (false, false, false) if map.entries().next().is_some() => None,
        (false, false, false) => match when {
            None => {
                reporter.error(node.span, "this rule matches nothing in particular: give fields, a `when:`, or both");
                None
            }
            Some((_, None)) => None,
            Some((_, Some(condition))) => Some(match condition.about {
                None => Matcher::Any,
                Some(About::Http) => Matcher::Http(HttpMatcher::default()),
                Some(About::Login) => Matcher::Login(LoginMatcher::default()),
                Some(About::Sql) => Matcher::Sql(SqlMatcher::default()),
            }),
        },
        _ => {
            reporter.error(
                node.span,
                "this rule mixes fields of SQL statements, HTTP requests and logins: no request is both; write one rule for each",
            );
            None
        }
    };
    let about = match &matcher {
        Some(Matcher::Http(_)) => Some(About::Http),
        Some(Matcher::Login(_)) => Some(About::Login),
        Some(Matcher::Sql(_)) => Some(About::Sql),
        Some(Matcher::Any) | None => None,
    };
    if let (Some(about), Some((when, Some(condition)))) = (about, when)
        && condition.about.is_some_and(|asked| asked != about)
    {
        let asked = condition.about.map(|asked| asked.to_string()).unwrap_or_default();
        reporter.error(when.span, format!("the rule is about {about}, the condition about {asked}: it would never hold"));
        return None;
    }
    matcher
}

fn sql(reporter: &Reporter<'_>, map: &Map<'_>, action: Action) -> SqlMatcher {
    let entries = |key: &str| map.get(key).map(|node| list(reporter, node, key)).unwrap_or_default();
    let words: Vec<(&str, Effect)> = Effect::ALL.iter().map(|effect| (effect.word(), *effect)).collect();
    let effects = map
        .get("effects")
        .map(|_| entries("effects").iter().filter_map(|node| word(reporter, node, "an effect", &words)).collect());
    let kind = |node| word::<ObjectKind>(reporter, node, "a kind of object", OBJECT_KINDS);
    SqlMatcher {
        effects,
        objects: entries("objects").iter().filter_map(|node| object(reporter, node, action)).collect(),
        kinds: entries("kinds").iter().filter_map(kind).collect(),
    }
}

/// `name` or `schema.name`. A deny is not escaped by quoting a name in another case.
fn object(reporter: &Reporter<'_>, node: &Node, action: Action) -> Option<ObjectPattern> {
    let written = text(reporter, node, "an object")?;
    let reading = Reading { fold: action != Action::Allow, ..Reading::default() };
    match split_dots(written)[..] {
        [name] => Some(ObjectPattern { schema: None, name: pattern(reporter, node, name, reading)? }),
        [schema, name] if !schema.is_empty() && !name.is_empty() => Some(ObjectPattern {
            schema: Some(pattern(reporter, node, schema, reading)?),
            name: pattern(reporter, node, name, reading)?,
        }),
        _ => {
            reporter.error_with(node.span, format!("`{}` is not an object", short(written)), "write name or schema.name");
            None
        }
    }
}

fn http(reporter: &Reporter<'_>, map: &Map<'_>, action: Action) -> HttpMatcher {
    let entries = |key: &str| map.get(key).map(|node| list(reporter, node, key)).unwrap_or_default();
    let headers = map.get("headers").and_then(|node| Map::read_open(reporter, node, "headers").map(|map| (node, map)));
    let mut matched = Vec::new();
    if let Some((node, headers)) = headers {
        if headers.entries().next().is_none() {
            reporter.error(node.span, "headers is empty: it would match nothing; leave it out or fill it");
        }
        for (_, key, value) in headers.entries() {
            let reading = Reading { fold: action != Action::Allow, ..Reading::default() };
            let compiled =
                text(reporter, value, "the pattern of a header").and_then(|text| pattern(reporter, value, text, reading));
            matched.extend(header_name(reporter, key).zip(compiled));
        }
    }
    HttpMatcher {
        methods: entries("methods").iter().filter_map(|node| method(reporter, node)).collect(),
        hosts: entries("hosts").iter().filter_map(|node| host(reporter, node)).collect(),
        paths: entries("paths").iter().flat_map(|node| paths(reporter, node, action)).collect(),
        headers: matched,
    }
}

fn method(reporter: &Reporter<'_>, node: &Node) -> Option<String> {
    let written = text(reporter, node, "a method")?;
    if written.len() > METHOD_BYTES_MAX || !written.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        let upper = written.to_ascii_uppercase();
        reporter.misspelt(node.span, format!("`{}` is not a method: methods are in upper case", short(written)), &upper, METHODS);
        return None;
    }
    Some(written.to_owned())
}

fn host(reporter: &Reporter<'_>, node: &Node) -> Option<Pattern> {
    let written = text(reporter, node, "a host")?;
    if written.contains(['/', ':']) && !written.contains('[') {
        reporter.error_with(
            node.span,
            format!("`{}` is not a host", short(written)),
            "write the name alone: no scheme, port or path",
        );
        return None;
    }
    pattern(reporter, node, &written.to_ascii_lowercase(), Reading { fold: true, ..Reading::default() })
}

/// A deny of `/admin/**` means `/admin` too.
fn paths(reporter: &Reporter<'_>, node: &Node, action: Action) -> Vec<Pattern> {
    let Some(written) = text(reporter, node, "a path") else { return Vec::new() };
    if !written.starts_with(['/', '*']) {
        reporter.error_with(
            node.span,
            format!("the path `{}` does not start with `/`", short(written)),
            format!("did you mean `/{}`?", short(written)),
        );
        return Vec::new();
    }
    // Some servers do not tell cases apart: a deny must not be dodged by them, an allow not be widened.
    let reading = Reading { path: true, fold: action != Action::Allow };
    let bare = written.strip_suffix("/**").filter(|bare| action != Action::Allow && !bare.is_empty());
    [Some(written), bare].into_iter().flatten().filter_map(|text| pattern(reporter, node, text, reading)).collect()
}

fn login(reporter: &Reporter<'_>, map: &Map<'_>, action: Action) -> LoginMatcher {
    let reading = Reading { fold: action != Action::Allow, ..Reading::default() };
    let patterns = |key: &str| {
        let entries = map.get(key).map(|node| list(reporter, node, key)).unwrap_or_default();
        entries
            .iter()
            .filter_map(|node| text(reporter, node, key).and_then(|text| pattern(reporter, node, text, reading)))
            .collect()
    };
    LoginMatcher { users: patterns("users"), databases: patterns("databases") }
}

fn pattern(reporter: &Reporter<'_>, node: &Node, written: &str, reading: Reading) -> Option<Pattern> {
    Pattern::new(written, reading)
        .map_err(|error| reporter.error(node.span, format!("`{}` is not a valid pattern: {error}", short(written))))
        .ok()
}

/// Compiles a condition and points at the character that is wrong.
fn when(reporter: &Reporter<'_>, node: &Node) -> Option<Condition> {
    let written = text(reporter, node, "when")?;
    condition::compile(written)
        .map_err(|finding| {
            let span = within(reporter, node, written, finding.offset);
            match &finding.word {
                Some((word, known)) => reporter.misspelt(span, finding.message, word, known),
                None => reporter.error(span, finding.message),
            }
        })
        .ok()
}

/// Where a character of a scalar stands in the file. A scalar whose text is not in the file as such (escapes, folded lines)
/// is pointed at as a whole.
fn within(reporter: &Reporter<'_>, node: &Node, written: &str, offset: usize) -> Span {
    let Some(raw) = node.bytes.and_then(|(start, end)| reporter.source().text.get(start..end)) else { return node.span };
    let literal = matches!(&node.value, Yaml::Scalar { .. }) && !written.trim_end().contains('\n');
    let Some(at) = raw.find(written.trim_end()).filter(|_| literal) else { return node.span };
    let before = raw.get(..at).unwrap_or("");
    let lines = before.matches('\n').count();
    let indent = before.rsplit('\n').next().unwrap_or("").chars().count();
    let first = if lines == 0 { node.span.start.column } else { 1 };
    let start = Mark { line: node.span.start.line + lines, column: first + indent + offset };
    Span { start, end: Mark { column: start.column + 1, ..start } }
}

const METHODS: &[&str] = &["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
const METHOD_BYTES_MAX: usize = 32;
const MESSAGE_BYTES_MAX: usize = 1024;
