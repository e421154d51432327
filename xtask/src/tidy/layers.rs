//! Who may use whom: the table of ARCHITECTURE.md, checked on every path that begins with `crate::`.

use super::{Finding, files::File, source};

/// A part of the agent: the folder or file below `agent/src`, the modules it may use, and words that must not stand in it.
struct Layer {
    /// A longer prefix wins: `protocol/http` before `protocol`.
    prefix: &'static str,
    may_use: &'static [&'static str],
    must_not_say: &'static [&'static str],
}

const NO_IO: &[&str] = &["tokio::", "std::net::Tcp", "std::net::Udp", "aya::", "hyper::"];
const NO_SOCKETS: &[&str] = &["tokio::net", "std::net::Tcp", "std::net::Udp", "aya::"];
const NO_KERNEL: &[&str] = &["aya::"];

const LAYERS: &[Layer] = &[
    Layer { prefix: "approval", may_use: &["flow", "policy"], must_not_say: NO_KERNEL },
    // A credential's values are made known to the masks before anyone can use them.
    Layer { prefix: "credential", may_use: &["flow", "mask::KnownSecrets", "policy"], must_not_say: NO_KERNEL },
    Layer { prefix: "flow", may_use: &[], must_not_say: NO_IO },
    Layer { prefix: "intercept", may_use: &["flow"], must_not_say: &[] },
    // Free text reaches the journal only after it was scrubbed.
    Layer {
        prefix: "journal",
        may_use: &["flow", "mask::Masked", "mask::MaskedWorkload", "mask::Scrubber", "policy"],
        must_not_say: NO_KERNEL,
    },
    Layer { prefix: "judge", may_use: &["approval", "flow", "journal", "mask", "policy"], must_not_say: NO_SOCKETS },
    // What a masked value becomes is a word of the policy language.
    Layer { prefix: "mask", may_use: &["flow", "policy::object::MaskWith"], must_not_say: NO_IO },
    Layer { prefix: "policy", may_use: &["flow"], must_not_say: NO_IO },
    Layer { prefix: "protocol", may_use: &["credential", "flow", "mask", "policy"], must_not_say: NO_SOCKETS },
    Layer {
        prefix: "protocol/http",
        may_use: &["credential", "flow", "journal", "judge", "mask", "policy"],
        must_not_say: NO_SOCKETS,
    },
    Layer {
        prefix: "proxy",
        may_use: &[
            "approval",
            "config",
            "credential",
            "drain",
            "flow",
            "intercept",
            "journal",
            "judge",
            "mask",
            "policy",
            "protocol",
            "telemetry",
            "tls",
        ],
        must_not_say: NO_KERNEL,
    },
    // What a conversation is told about a leg that was made secure.
    Layer { prefix: "tls", may_use: &["flow", "policy", "protocol::TlsFacts"], must_not_say: NO_KERNEL },
];

/// These wire the parts together, and may use everything.
const TOP: &[&str] = &["app", "cli", "config", "control", "drain", "lib.rs", "main.rs", "telemetry"];

pub(super) fn check(file: &File) -> Vec<Finding> {
    if file.is_test() {
        return Vec::new();
    }
    let code = source::without_tests(&source::blank(&file.text));
    if file.path.starts_with("agent/wire/src/") {
        return said(file, &code, &["tokio::", "std::net", "std::time", "weir::"]);
    }
    let Some(place) = file.path.strip_prefix("agent/src/") else { return Vec::new() };
    if TOP.iter().any(|top| place == *top || in_module(place, top)) {
        return Vec::new();
    }
    let layers = LAYERS.iter().filter(|layer| place == layer.prefix || in_module(place, layer.prefix));
    let Some(layer) = layers.max_by_key(|layer| layer.prefix.len()) else {
        return vec![Finding::new(file, 0, "this module is not in the table of who may use whom (xtask/src/tidy/layers.rs)")];
    };
    let own = layer.prefix.split('/').next().unwrap_or_default();
    let mut findings = said(file, &code, layer.must_not_say);
    for (path, offset) in crate_paths(&code) {
        let module = path.split("::").next().unwrap_or_default();
        if module != own && !layer.may_use.iter().any(|allowed| covers(allowed, &path)) {
            findings.push(Finding::new(file, source::line_of(&code, offset), format!("{own} must not use crate::{path}")));
        }
    }
    findings
}

/// `mask` covers everything in it; `mask::Masked` covers itself.
fn covers(allowed: &str, path: &str) -> bool {
    path == allowed || path.strip_prefix(allowed).is_some_and(|rest| rest.starts_with("::"))
}

fn in_module(place: &str, module: &str) -> bool {
    place.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn said(file: &File, code: &str, words: &[&str]) -> Vec<Finding> {
    let found = words.iter().flat_map(|word| code.match_indices(word).map(move |(offset, _)| (word, offset)));
    found
        .filter(|(_, offset)| !preceded_by_word(code, *offset))
        .map(|(word, offset)| Finding::new(file, source::line_of(code, offset), format!("{word} must not be used here")))
        .collect()
}

fn preceded_by_word(code: &str, offset: usize) -> bool {
    let before = offset.checked_sub(1).and_then(|at| code.as_bytes().get(at));
    before.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Every path behind `crate::`, groups written out, with its offset.
fn crate_paths(code: &str) -> Vec<(String, usize)> {
    let starts = code.match_indices("crate::").filter(|(offset, _)| !preceded_by_word(code, *offset));
    starts
        .flat_map(|(offset, word)| {
            expand(code.get(offset + word.len()..).unwrap_or_default()).into_iter().map(move |p| (p, offset))
        })
        .collect()
}

/// `a::{b, c::d}` gives `a::b` and `a::c::d`; the text behind the path is left alone.
fn expand(text: &str) -> Vec<String> {
    let path: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
    let rest = text.get(path.len()..).unwrap_or_default();
    let grouped = (path.is_empty() || path.ends_with("::")) && rest.starts_with('{');
    if !grouped {
        return vec![path.trim_end_matches(':').to_owned()];
    }
    let body = rest.get(1..source::item_end(rest, 0).saturating_sub(1)).unwrap_or_default();
    split_group(body).iter().flat_map(|part| expand(part.trim())).map(|part| format!("{path}{part}")).collect()
}

fn split_group(body: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (offset, byte) in body.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.extend(body.get(start..offset));
                start = offset + 1;
            }
            _ => {}
        }
    }
    parts.extend(body.get(start..));
    parts.retain(|part| !part.trim().is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(&File { path: path.to_owned(), text: text.to_owned() }).len()
    }

    #[test]
    fn writes_groups_out() {
        assert_eq!(expand("{flow::{A, B}, mask::Masked} ;"), ["flow::A", "flow::B", "mask::Masked"]);
        assert_eq!(expand("policy::Permit;"), ["policy::Permit"]);
    }

    #[test]
    fn refuses_what_the_table_forbids() {
        assert_eq!(findings("agent/src/policy/load.rs", "use crate::{flow::Flow, mask::Masked};"), 1);
        assert_eq!(findings("agent/src/journal/mod.rs", "use crate::mask::KnownSecrets;"), 1);
        assert_eq!(findings("agent/src/protocol/postgres/mod.rs", "let j = crate::judge::Judge;"), 1);
        assert_eq!(findings("agent/src/policy/load.rs", "use tokio::fs;"), 1);
        assert_eq!(findings("agent/wire/src/lib.rs", "use std::net::IpAddr;"), 1);
        assert_eq!(findings("agent/src/surprise.rs", "fn a() {}"), 1);
    }

    #[test]
    fn takes_what_the_table_allows() {
        assert_eq!(findings("agent/src/journal/mod.rs", "use crate::{flow::Flow, mask::{Masked, Scrubber}, journal::Event};"), 0);
        assert_eq!(findings("agent/src/protocol/http/mod.rs", "use crate::judge::Judge;"), 0);
        assert_eq!(findings("agent/src/mask/mod.rs", "#[cfg(test)]\nmod tests { use crate::journal::X; }"), 0);
        assert_eq!(findings("agent/src/cli/run.rs", "use crate::proxy::X;"), 0);
    }
}
