//! What one session does to every message, decided once.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError},
};

use http::HeaderName;

use super::{
    Connect, HttpConfig, Limits,
    gate::Gate,
    inject::{Held, Injection},
};
use crate::{
    mask::{JsonKeys, KnownSecrets},
    policy::{
        Permit,
        object::{Host, Inject, TlsMode},
    },
};

pub(super) struct Plan {
    pub(super) gate: Arc<dyn Gate>,
    pub(super) known: Arc<KnownSecrets>,
    pub(super) connect: Connect,
    pub(super) limits: Limits,
    pub(super) injection: Option<Injection>,
    pub(super) masks: Arc<Masks>,
    /// What the connection and its credential are for; a permit for something else needs another connection.
    pub(super) purpose: Purpose,
    /// Names of the upstream, when it was recognised by one of them: only for these the credential is meant. Else empty.
    pub(super) names: Vec<Arc<str>>,
    /// Host of requests that name none (HTTP/1.0).
    pub(super) default_host: String,
}

/// What policy wants masked in responses.
#[derive(Default)]
pub(super) struct Masks {
    pub(super) json: Option<JsonMask>,
    /// Response headers, each with its mask's name.
    pub(super) headers: Arc<[(HeaderName, Arc<str>)]>,
}

#[derive(Clone)]
pub(super) struct JsonMask {
    pub(super) keys: Arc<JsonKeys>,
    /// Mask name and key, in the order of the keys.
    pub(super) names: Arc<[(Arc<str>, Arc<str>)]>,
}

impl Plan {
    pub(super) fn new(config: HttpConfig) -> Self {
        let HttpConfig { permit, judge, pin, known, connect, limits } = config;
        Self {
            injection: permit.inject().map(|inject| Injection::new(inject, pin.as_deref().map(Held::from), &known)),
            masks: Arc::new(Masks::new(&permit)),
            purpose: Purpose::of(&permit),
            names: names(&permit),
            default_host: match permit.host() {
                Some(host) => host.to_string(),
                None => permit.flow().origin.orig_dst.0.ip().to_string(),
            },
            gate: judge,
            known,
            connect,
            limits,
        }
    }
}

/// Where a session's requests go, and with what credential.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Purpose {
    inject: Option<Inject>,
    host: Option<Arc<str>>,
    hosts: Vec<Host>,
    tls: Option<(TlsMode, Option<PathBuf>, Option<String>)>,
}

impl Purpose {
    pub(super) fn of(permit: &Permit) -> Self {
        let tls = &permit.upstream().tls;
        Self {
            inject: permit.inject().cloned(),
            host: permit.host().cloned(),
            hosts: permit.upstream().hosts.clone(),
            tls: Some((tls.mode, tls.ca.clone(), tls.server_name.clone())),
        }
    }
}

impl Masks {
    pub(super) fn new(permit: &Permit) -> Self {
        let mut names: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        let mut headers = Vec::new();
        for mask in permit.masks() {
            names.extend(mask.json_keys.iter().map(|key| (Arc::clone(&mask.name), Arc::from(key.as_str()))));
            let named = mask.headers.iter().filter_map(|name| HeaderName::try_from(name.as_str()).ok());
            headers.extend(named.map(|name| (name, Arc::clone(&mask.name))));
        }
        Self { json: JsonMask::new(names), headers: headers.into() }
    }
}

impl JsonMask {
    pub(super) fn new(names: Vec<(Arc<str>, Arc<str>)>) -> Option<Self> {
        let keys = JsonKeys::new(names.iter().map(|(_, key)| &**key));
        (!keys.is_empty()).then(|| Self { keys: Arc::new(keys), names: names.into() })
    }
}

fn names(permit: &Permit) -> Vec<Arc<str>> {
    if permit.host().is_none() {
        return Vec::new();
    }
    let names = permit.upstream().hosts.iter().filter_map(|host| match host {
        Host::Name(name) => Some(Arc::clone(name)),
        Host::Address(_) | Host::Cidr(_) => None,
    });
    // By its address, too: a client that was configured with it asks for it.
    names.chain([Arc::from(permit.flow().origin.orig_dst.0.ip().to_string())]).collect()
}

/// Locks a mutex whose holder never leaves it half-written.
pub(super) fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
