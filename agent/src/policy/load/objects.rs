//! `kind: Upstream` and `kind: Credential`.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use super::{
    fields::{self, Map, list, number, short, text, word},
    source::Reporter,
    tree::{Node, Span, Value as Yaml},
};
use crate::{
    flow::{Protocol, canonical_ip},
    policy::object::{CredentialSpec, DownstreamTls, Host, SecretSource, TlsMode, Upstream, UpstreamTls, Value},
};

pub(in crate::policy) const UPSTREAM_KEYS: &[&str] = &["hosts", "ports", "protocol", "tls", "downstream"];
pub(in crate::policy) const UPSTREAM_TLS_KEYS: &[&str] = &["mode", "ca", "serverName"];
pub(in crate::policy) const DOWNSTREAM_KEYS: &[&str] = &["tls"];
pub(in crate::policy) const CREDENTIAL_KEYS: &[&str] = &["user", "password", "token"];
pub(in crate::policy) const SOURCE_KEYS: &[&str] = &["file", "env", "exec", "systemd"];

/// Reads an upstream's `spec:`. `None` only when there is nothing to go on with; mistakes were reported either way.
pub(super) fn upstream(reporter: &Reporter<'_>, spec: &Node, name: &str, labels: Vec<(String, String)>) -> Option<Upstream> {
    let what = "the spec of an Upstream";
    let map = Map::read(reporter, spec, what, UPSTREAM_KEYS)?;
    let hosts = map.require(reporter, what, "hosts", UPSTREAM_KEYS).map(|node| list(reporter, node, "hosts")).unwrap_or_default();
    let ports = map.get("ports").map(|node| list(reporter, node, "ports")).unwrap_or_default();
    let port = |node| number(reporter, node, "a port", 1, 65_535).and_then(|port| u16::try_from(port).ok());
    let protocol = map.get("protocol").and_then(|node| protocol(reporter, node)).flatten();
    Some(Upstream {
        name: name.into(),
        labels,
        hosts: hosts.iter().filter_map(|node| host(reporter, node)).collect(),
        ports: ports.iter().filter_map(port).collect(),
        protocol,
        tls: map.get("tls").and_then(|node| upstream_tls(reporter, node)).unwrap_or(UpstreamTls {
            mode: TlsMode::default(),
            ca: None,
            server_name: None,
        }),
        downstream_tls: map.get("downstream").and_then(|node| downstream(reporter, node)).unwrap_or_default(),
    })
}

/// The outer `None` is a mistake, the inner one `auto`.
fn protocol(reporter: &Reporter<'_>, node: &Node) -> Option<Option<Protocol>> {
    let words: &[(&str, Result<Option<Protocol>, ()>)] = &[
        ("auto", Ok(None)),
        ("tcp", Ok(Some(Protocol::Tcp))),
        ("http", Ok(Some(Protocol::Http))),
        ("postgres", Ok(Some(Protocol::Postgres))),
        ("mysql", Err(())),
        ("redis", Err(())),
        ("ssh", Err(())),
        ("ldap", Err(())),
        ("kubernetes", Err(())),
        ("mongodb", Err(())),
        ("mssql", Err(())),
    ];
    match word(reporter, node, "protocol", words)? {
        Ok(protocol) => Some(protocol),
        Err(()) => {
            unavailable(reporter, node.span, "this protocol", Some("available: auto, tcp, http, postgres"));
            None
        }
    }
}

fn host(reporter: &Reporter<'_>, node: &Node) -> Option<Host> {
    let written = text(reporter, node, "a host")?;
    if let Ok(address) = written.parse::<IpAddr>() {
        return Some(Host::Address(canonical_ip(address)));
    }
    if written.contains('/') {
        return match written.parse::<ipnet::IpNet>() {
            Ok(network) if network == network.trunc() => Some(Host::Cidr(network)),
            Ok(network) => {
                reporter.error_with(
                    node.span,
                    format!("`{}` has bits set behind its prefix", short(written)),
                    format!("did you mean `{}`?", network.trunc()),
                );
                None
            }
            Err(_) => {
                reporter.error_with(node.span, format!("`{}` is not a network", short(written)), "write 10.2.0.0/16 or fd00::/8");
                None
            }
        };
    }
    let name = written.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if name.len() <= 253 && name.split('.').all(label) && !numeric {
        return Some(Host::Name(Arc::from(name)));
    }
    let help = match written {
        _ if written.contains('*') => "a host is one name, address or network: patterns cannot be resolved",
        _ if written.contains(':') && written.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) => {
            "the port belongs in `ports:`"
        }
        _ => "write a name, an address or a network",
    };
    reporter.error_with(node.span, format!("`{}` is not a host", short(written)), help);
    None
}

fn upstream_tls(reporter: &Reporter<'_>, node: &Node) -> Option<UpstreamTls> {
    let map = Map::read(reporter, node, "tls", UPSTREAM_TLS_KEYS)?;
    let mode = map.get("mode").and_then(|node| word(reporter, node, "tls mode", TLS_MODES)).unwrap_or_default();
    let ca = map.get("ca").and_then(|node| path(reporter, node, "ca"));
    let server_name = map.get("serverName").and_then(|node| text(reporter, node, "serverName"));
    for key in ["ca", "serverName"] {
        if let Some(span) = map.key_span(key)
            && matches!(mode, TlsMode::Off | TlsMode::Require)
        {
            reporter.error(span, format!("`{key}` verifies nothing when the mode is off or require"));
        }
    }
    Some(UpstreamTls { mode, ca, server_name: server_name.map(str::to_owned) })
}

fn downstream(reporter: &Reporter<'_>, node: &Node) -> Option<DownstreamTls> {
    let map = Map::read(reporter, node, "downstream", DOWNSTREAM_KEYS)?;
    map.get("tls").and_then(|node| word(reporter, node, "downstream tls", DOWNSTREAM_TLS))
}

/// Reads a credential's `spec:`. Nothing that may be a secret by mistake is ever shown.
pub(super) fn credential(reporter: &Reporter<'_>, spec: &Node, name: &str) -> Option<CredentialSpec> {
    hide_values(reporter, spec);
    let what = "the spec of a Credential";
    let map = Map::read(reporter, spec, what, CREDENTIAL_KEYS)?;
    if map.entries().next().is_none() {
        reporter.error(fields::start_of(spec.span), format!("{what} needs `user:` and `password:`, or `token:`"));
    }
    Some(CredentialSpec {
        name: name.into(),
        user: map.get("user").and_then(|node| match &node.value {
            Yaml::Map(_) => source(reporter, node, "user").map(Value::From),
            _ => text(reporter, node, "user").map(|user| Value::Literal(user.to_owned())),
        }),
        password: map.get("password").and_then(|node| source(reporter, node, "password")),
        token: map.get("token").and_then(|node| source(reporter, node, "token")),
    })
}

/// A secret may stand under a misspelt key, or in a place where only a mapping should be.
fn hide_values(reporter: &Reporter<'_>, spec: &Node) {
    let Yaml::Map(entries) = &spec.value else { return reporter.hide(spec.span) };
    for (key, value) in entries {
        let is_user = matches!(&key.value, Yaml::Scalar { text, .. } if text == "user");
        if !is_user && !matches!(value.value, Yaml::Map(_)) {
            reporter.hide(value.span);
        }
        if let Yaml::Map(inner) = &value.value {
            let known = |key: &Node| matches!(&key.value, Yaml::Scalar { text, .. } if SOURCE_KEYS.contains(&text.as_str()));
            inner.iter().filter(|(key, _)| !known(key)).for_each(|(_, value)| reporter.hide(value.span));
        }
    }
}

fn source(reporter: &Reporter<'_>, node: &Node, what: &str) -> Option<SecretSource> {
    let Yaml::Map(_) = &node.value else {
        reporter.hide(node.span);
        reporter.error_with(
            node.span,
            "a secret does not belong in a policy file: use file, env, exec or systemd",
            format!("{what}: {{file: /etc/weir/secrets/NAME}}"),
        );
        return None;
    };
    let open = Map::read_open(reporter, node, what)?;
    if let Some(span) = open.key_span("vault") {
        unavailable(reporter, span, "the source `vault`", Some("available: file, env, exec, systemd"));
        return None;
    }
    let map = Map::read(reporter, node, &format!("the source of {what}"), SOURCE_KEYS)?;
    let mut given = map.entries().filter(|(key, ..)| SOURCE_KEYS.contains(key));
    let (Some((key, _, value)), None) = (given.next(), given.next()) else {
        if map.entries().all(|(key, ..)| SOURCE_KEYS.contains(&key)) {
            reporter.error(node.span, format!("{what} needs exactly one of: {}", SOURCE_KEYS.join(", ")));
        }
        return None;
    };
    match key {
        "file" => path(reporter, value, "file").map(SecretSource::File),
        "env" => {
            let name = text(reporter, value, "env")?;
            let fits =
                !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !fits {
                reporter.hide(value.span);
                reporter.error(value.span, "env must be the name of an environment variable, not its value");
                return None;
            }
            Some(SecretSource::Env(name.to_owned()))
        }
        "exec" => {
            let arguments: Vec<String> = list(reporter, value, "exec")
                .iter()
                .filter_map(|node| text(reporter, node, "an argument").map(str::to_owned))
                .collect();
            let program = arguments.first()?;
            if !program.starts_with('/') {
                reporter.error(value.span, "exec must start with the absolute path of a program");
                return None;
            }
            Some(SecretSource::Exec(arguments))
        }
        _ => {
            let name = text(reporter, value, "systemd")?;
            if name.contains('/') || name.starts_with('.') {
                reporter.error(value.span, "systemd must be the name of a credential, not a path");
                return None;
            }
            Some(SecretSource::Systemd(name.to_owned()))
        }
    }
}

/// An absolute path without `..`.
pub(super) fn path(reporter: &Reporter<'_>, node: &Node, what: &str) -> Option<PathBuf> {
    let written = text(reporter, node, what)?;
    if !written.starts_with('/') || written.split('/').any(|part| part == "..") || written.contains('\0') {
        reporter.error(node.span, format!("{what} must be an absolute path without `..`"));
        return None;
    }
    Some(PathBuf::from(written))
}

/// The language has it, this version does not do it: refused, never ignored.
pub(super) fn unavailable(reporter: &Reporter<'_>, span: Span, what: &str, help: Option<&str>) {
    let message = format!("{what} is not available in this version");
    match help {
        Some(help) => reporter.error_with(span, message, help),
        None => reporter.error(span, message),
    }
}

const TLS_MODES: &[(&str, TlsMode)] = &[
    ("off", TlsMode::Off),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];
const DOWNSTREAM_TLS: &[(&str, DownstreamTls)] = &[("accept", DownstreamTls::Accept), ("decline", DownstreamTls::Decline)];
