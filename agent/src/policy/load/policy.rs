//! `kind: Policy`.

use std::{collections::HashSet, sync::Arc};

use super::{
    Known,
    fields::{self, Map, is_null, list, number, short, text, word},
    objects::{path, unavailable},
    rules,
    source::Reporter,
    tree::{Node, Value as Yaml},
};
use crate::policy::{
    object::{
        ColumnPattern, Durability, Glob, HttpPlace, Inject, JournalSpec, Mask, MaskWith, Mode, OnUnreadable, PolicySpec,
        Unmatched, UpstreamSelector, WorkloadSelector,
    },
    pattern::{self, Reading, split_dots},
};

pub(in crate::policy) const POLICY_KEYS: &[&str] =
    &["workloads", "upstreams", "unmatched", "mode", "onUnreadable", "inject", "rules", "mask", "journal", "tests"];
pub(in crate::policy) const WORKLOAD_KEYS: &[&str] = &["name", "cgroup", "unit", "exe", "uid"];
pub(in crate::policy) const UPSTREAM_SELECTOR_KEYS: &[&str] = &["name", "labels"];
pub(in crate::policy) const INJECT_KEYS: &[&str] = &["credential", "as"];
pub(in crate::policy) const MASK_KEYS: &[&str] = &["name", "columns", "jsonKeys", "headers", "with"];
pub(in crate::policy) const JOURNAL_KEYS: &[&str] = &["statements", "rows", "bodies"];

/// Reads a policy's `spec:` but its tests. Mistakes were reported; what could be read is returned.
pub(super) fn policy(reporter: &Reporter<'_>, spec: &Node, name: &str, known: &Known) -> Option<PolicySpec> {
    let what = "the spec of a Policy";
    let map = Map::read(reporter, spec, what, POLICY_KEYS)?;
    let workloads =
        map.require(reporter, what, "workloads", POLICY_KEYS).map(|node| list(reporter, node, "workloads")).unwrap_or_default();
    let upstreams = map.get("upstreams").map(|node| list(reporter, node, "upstreams")).unwrap_or_default();
    let masks = map.get("mask").map(|node| list(reporter, node, "mask")).unwrap_or_default();
    let mut names = HashSet::new();
    let masks = masks.iter().filter_map(|node| mask(reporter, node, name, &mut names)).collect();
    Some(PolicySpec {
        workloads: workloads.iter().filter_map(|node| workload(reporter, node)).collect(),
        upstreams: upstreams.iter().filter_map(|node| upstream_selector(reporter, node, known)).collect(),
        unmatched: map.get("unmatched").and_then(|node| word(reporter, node, "unmatched", UNMATCHED)).unwrap_or_default(),
        mode: map.get("mode").and_then(|node| word(reporter, node, "mode", MODES)).unwrap_or_default(),
        on_unreadable: map
            .get("onUnreadable")
            .and_then(|node| word(reporter, node, "onUnreadable", ON_UNREADABLE))
            .unwrap_or_default(),
        inject: map.get("inject").and_then(|node| inject(reporter, node, known)),
        rules: map.get("rules").map(|node| rules::rules(reporter, node, name)).unwrap_or_default(),
        masks,
        journal: map.get("journal").and_then(|node| journal(reporter, node)).unwrap_or_default(),
    })
}

fn workload(reporter: &Reporter<'_>, node: &Node) -> Option<WorkloadSelector> {
    let what = "a workload";
    let open = Map::read_open(reporter, node, what)?;
    if let Some(span) = open.key_span("kubernetes") {
        unavailable(reporter, span, "selecting by `kubernetes`", Some("select by cgroup, unit or name"));
        return None;
    }
    let map = Map::read(reporter, node, what, WORKLOAD_KEYS)?;
    if map.entries().next().is_none() {
        reporter.error(node.span, "a workload without fields matches nothing: give name, cgroup, unit, exe or uid");
        return None;
    }
    // A mistake in one field must not widen the entry: without all of its fields it is dropped, and the file is refused.
    let mut whole = true;
    let mut check = |key: &str, read: bool| whole &= read || map.get(key).is_none();
    let name = map.get("name").and_then(|node| fields::name(reporter, node, "the name of a workload"));
    check("name", name.is_some());
    let cgroup = map.get("cgroup").and_then(|node| cgroup(reporter, node));
    check("cgroup", cgroup.is_some());
    let unit = map.get("unit").and_then(|node| unit(reporter, node));
    check("unit", unit.is_some());
    let exe = map.get("exe").and_then(|node| path(reporter, node, "exe"));
    check("exe", exe.is_some());
    let uid = map.get("uid").and_then(|node| number(reporter, node, "uid", 0, u64::from(u32::MAX) - 1));
    check("uid", uid.is_some());
    let uid = uid.and_then(|uid| u32::try_from(uid).ok());
    whole.then(|| WorkloadSelector { name: name.map(str::to_owned), cgroup, unit: unit.map(str::to_owned), exe, uid })
}

fn cgroup(reporter: &Reporter<'_>, node: &Node) -> Option<Glob> {
    let written = text(reporter, node, "cgroup")?;
    if !written.starts_with('/') || written == "/" {
        reporter.error_with(
            node.span,
            "cgroup must be a path below the root of the v2 hierarchy",
            "write /weir.slice/** or /system.slice/*.service",
        );
        return None;
    }
    glob(reporter, node, written, Reading { path: true, ..Reading::default() })
}

fn unit<'n>(reporter: &Reporter<'_>, node: &'n Node) -> Option<&'n str> {
    let written = text(reporter, node, "unit")?;
    let suffixes = [".service", ".scope", ".slice", ".socket", ".mount"];
    if written.contains(['*', '/']) || !suffixes.iter().any(|suffix| written.ends_with(suffix)) {
        reporter.error_with(
            node.span,
            format!("`{}` is not a unit", short(written)),
            "write it in full: orders.service; for patterns use cgroup",
        );
        return None;
    }
    Some(written)
}

fn upstream_selector(reporter: &Reporter<'_>, node: &Node, known: &Known) -> Option<UpstreamSelector> {
    let map = Map::read(reporter, node, "an upstream selector", UPSTREAM_SELECTOR_KEYS)?;
    match (map.get("name"), map.get("labels")) {
        (Some(name), None) => {
            let written = text(reporter, name, "name")?;
            if !known.upstreams.iter().any(|upstream| &*upstream.name == written) {
                let names: Vec<&str> = known.upstreams.iter().map(|upstream| &*upstream.name).collect();
                reporter.misspelt(name.span, format!("no Upstream is named `{}`", short(written)), written, &names);
                return None;
            }
            Some(UpstreamSelector::Name(written.into()))
        }
        (None, Some(labels)) => {
            let wanted = super::labels(reporter, labels)?;
            if wanted.is_empty() {
                reporter.error(labels.span, "labels is empty: it would match every upstream; name them");
                return None;
            }
            if !known.upstreams.iter().any(|upstream| wanted.iter().all(|label| upstream.labels.contains(label))) {
                reporter.error(labels.span, "no Upstream carries these labels");
                return None;
            }
            Some(UpstreamSelector::Labels(wanted))
        }
        _ => {
            reporter.error(node.span, "an upstream selector has either `name:` or `labels:`");
            None
        }
    }
}

fn inject(reporter: &Reporter<'_>, node: &Node, known: &Known) -> Option<Inject> {
    let map = Map::read(reporter, node, "inject", INJECT_KEYS)?;
    let http = map.get("as").and_then(|node| http_place(reporter, node));
    let named = map.require(reporter, "inject", "credential", INJECT_KEYS)?;
    let written = text(reporter, named, "credential")?;
    let Some(credential) = known.credentials.iter().find(|credential| &*credential.name == written) else {
        let names: Vec<&str> = known.credentials.iter().map(|credential| &*credential.name).collect();
        reporter.misspelt(named.span, format!("no Credential is named `{}`", short(written)), written, &names);
        return None;
    };
    let (needs, has) = match &http {
        Some(HttpPlace::Basic) => ("a user and a password", credential.user.is_some() && credential.password.is_some()),
        Some(HttpPlace::Bearer | HttpPlace::Header(_) | HttpPlace::Query(_)) => ("a token", credential.token.is_some()),
        None => (
            "a token, or a user and a password",
            credential.token.is_some() || (credential.user.is_some() && credential.password.is_some()),
        ),
    };
    if !has && !known.flawed.contains(&credential.name) {
        reporter.error(named.span, format!("credential `{written}` is injected like this only if it has {needs}"));
    }
    Some(Inject { credential: Arc::clone(credential), http })
}

fn http_place(reporter: &Reporter<'_>, node: &Node) -> Option<HttpPlace> {
    let Yaml::Map(_) = &node.value else {
        return match word(reporter, node, "as", &[("bearer", true), ("basic", false)])? {
            true => Some(HttpPlace::Bearer),
            false => Some(HttpPlace::Basic),
        };
    };
    let map = Map::read(reporter, node, "as", &["header", "query"])?;
    match (map.get("header"), map.get("query")) {
        (Some(header), None) => header_name(reporter, header).and_then(|name| {
            if FRAMING_HEADERS.contains(&name.as_str()) {
                reporter.error(header.span, format!("`{name}` belongs to the message's framing: no credential goes there"));
                return None;
            }
            Some(HttpPlace::Header(name))
        }),
        (None, Some(query)) => {
            let name = fields::name(reporter, query, "the name of a query parameter")?;
            Some(HttpPlace::Query(name.to_owned()))
        }
        _ => {
            reporter.error(node.span, "`as:` is bearer, basic, {header: NAME} or {query: NAME}");
            None
        }
    }
}

/// A field name (RFC 9110, 5.1), in lower case.
pub(super) fn header_name(reporter: &Reporter<'_>, node: &Node) -> Option<String> {
    let written = text(reporter, node, "the name of a header")?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if written.len() > HEADER_NAME_BYTES_MAX || !written.bytes().all(token) {
        reporter.error(node.span, format!("`{}` is not the name of a header", short(written)));
        return None;
    }
    Some(written.to_ascii_lowercase())
}

fn mask(reporter: &Reporter<'_>, node: &Node, policy: &str, names: &mut HashSet<String>) -> Option<Mask> {
    let what = "an entry of mask";
    let open = Map::read_open(reporter, node, what)?;
    let detectors = open.key_span("detectors");
    if let Some(span) = detectors {
        unavailable(reporter, span, "masking by `detectors`", Some("name columns, jsonKeys or headers"));
    }
    let known: Vec<&str> = MASK_KEYS.iter().copied().chain(detectors.map(|_| "detectors")).collect();
    let map = Map::read(reporter, node, what, &known)?;
    let name_node = map.require(reporter, what, "name", MASK_KEYS);
    let name = name_node.and_then(|node| fields::name(reporter, node, "the name of a mask")).unwrap_or("?");
    if let Some(node) = name_node
        && name != "?"
        && !names.insert(name.to_owned())
    {
        reporter.error(node.span, format!("policy {policy} has two masks named `{name}`"));
    }
    let entries = |key: &str| map.get(key).map(|node| list(reporter, node, key)).unwrap_or_default();
    let places = ["columns", "jsonKeys", "headers"];
    if detectors.is_none() && places.iter().all(|key| map.get(key).is_none()) {
        reporter.error(fields::start_of(node.span), "a mask needs `columns:`, `jsonKeys:` or `headers:`");
    }
    Some(Mask {
        name: format!("{policy}/{name}").into(),
        columns: entries("columns").iter().filter_map(|node| column(reporter, node)).collect(),
        json_keys: entries("jsonKeys").iter().filter_map(|node| text(reporter, node, "a JSON key")).map(str::to_owned).collect(),
        headers: entries("headers").iter().filter_map(|node| header_name(reporter, node)).collect(),
        with: map.get("with").and_then(|node| mask_with(reporter, node)).unwrap_or_default(),
    })
}

fn column(reporter: &Reporter<'_>, node: &Node) -> Option<ColumnPattern> {
    let written = text(reporter, node, "a column")?;
    let lower = written.to_lowercase();
    let [schema, table, column] = split_dots(&lower)[..] else {
        reporter.error_with(
            node.span,
            format!("`{}` is not schema.table.column", short(written)),
            "write *.users.password for any schema",
        );
        return None;
    };
    let part = |text: &str| {
        if text.is_empty() {
            reporter.error(node.span, format!("`{}` has an empty part", short(written)));
            return None;
        }
        glob(reporter, node, text, Reading::default())
    };
    Some(ColumnPattern { text: written.into(), schema: part(schema)?, table: part(table)?, column: part(column)? })
}

fn mask_with(reporter: &Reporter<'_>, node: &Node) -> Option<MaskWith> {
    if is_null(node) {
        return Some(MaskWith::Null);
    }
    let Yaml::Map(_) = &node.value else {
        let words = [("null", MaskWith::Null), ("redact", MaskWith::Redact), ("last4", MaskWith::Last4)];
        let names: Vec<(&str, usize)> = words.iter().enumerate().map(|(index, (word, _))| (*word, index)).collect();
        let index = word(reporter, node, "with", &names)?;
        return words.into_iter().nth(index).map(|(_, with)| with);
    };
    let map = Map::read(reporter, node, "with", &["keepDomain", "constant"])?;
    match (map.get("keepDomain"), map.get("constant")) {
        (Some(flag), None) => word(reporter, flag, "keepDomain", &[("true", True)]).map(|_| MaskWith::KeepDomain),
        (None, Some(constant)) => {
            let written = text(reporter, constant, "constant")?;
            if written.len() > CONSTANT_BYTES_MAX {
                reporter.error(constant.span, format!("constant is longer than {CONSTANT_BYTES_MAX} bytes"));
                return None;
            }
            Some(MaskWith::Constant(written.to_owned()))
        }
        _ => {
            reporter.error(node.span, "`with:` is \"null\", redact, last4, {keepDomain: true} or {constant: TEXT}");
            None
        }
    }
}

/// `keepDomain: false` would mean nothing.
#[derive(Clone, Copy)]
struct True;

fn journal(reporter: &Reporter<'_>, node: &Node) -> Option<JournalSpec> {
    let map = Map::read(reporter, node, "journal", JOURNAL_KEYS)?;
    for key in ["rows", "bodies"] {
        if let Some(value) = map.get(key)
            && !matches!(&value.value, Yaml::Scalar { text, .. } if text == "none")
        {
            unavailable(reporter, value.span, &format!("journaling {key}"), Some("write none, or leave it out"));
        }
    }
    let statements = map.get("statements").and_then(|node| word(reporter, node, "statements", DURABILITY)).unwrap_or_default();
    Some(JournalSpec { statements })
}

pub(super) fn glob(reporter: &Reporter<'_>, node: &Node, written: &str, reading: Reading) -> Option<Glob> {
    pattern::glob(written, reading)
        .map_err(|error| reporter.error(node.span, format!("`{}` is not a valid pattern: {error}", short(written))))
        .ok()
}

const UNMATCHED: &[(&str, Unmatched)] = &[("deny", Unmatched::Deny), ("allow", Unmatched::Allow)];
const MODES: &[(&str, Mode)] = &[("enforce", Mode::Enforce), ("observe", Mode::Observe)];
const ON_UNREADABLE: &[(&str, OnUnreadable)] =
    &[("deny", OnUnreadable::Deny), ("hold", OnUnreadable::Hold), ("allow", OnUnreadable::Allow)];
const DURABILITY: &[(&str, Durability)] = &[("durable", Durability::Durable), ("bounded", Durability::Bounded)];
/// Headers that say where a message goes and where it ends.
const FRAMING_HEADERS: &[&str] = &["connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"];
const HEADER_NAME_BYTES_MAX: usize = 256;
const CONSTANT_BYTES_MAX: usize = 1024;
