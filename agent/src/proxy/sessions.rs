//! The open sessions: what `weir sessions` shows, and where a cancel request finds its backend.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use serde::Serialize;

use crate::{
    flow::{Flow, Protocol, SessionId},
    policy::Permit,
};

/// Every session between its opening and its close.
#[derive(Default)]
pub struct Sessions {
    open: Mutex<HashMap<SessionId, Arc<Session>>>,
    backends: Mutex<HashMap<(i32, Bytes), Backend>>,
    opened_total: AtomicU64,
    refused_total: AtomicU64,
}

/// One open session, for people and scripts.
pub struct Session {
    flow: Flow,
    upstream: Option<Arc<str>>,
    requests: AtomicU64,
    denied: AtomicU64,
}

/// What `weir sessions` prints for one session.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct SessionRow {
    pub session: SessionId,
    pub opened_unix_ms: u64,
    pub workload: String,
    pub pid: u32,
    pub uid: u32,
    pub upstream: Option<String>,
    pub orig_dst: SocketAddr,
    pub protocol: Protocol,
    pub requests: u64,
    pub denied: u64,
}

/// Where the owner of a cancel key is connected.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) permit: Permit,
}

/// Keeps a session listed until it is dropped.
pub struct Listed {
    sessions: Arc<Sessions>,
    pub session: Arc<Session>,
    backend: Option<(i32, Bytes)>,
}

impl Sessions {
    pub(super) fn list(self: &Arc<Self>, flow: &Flow, upstream: Option<Arc<str>>) -> Listed {
        let session = Arc::new(Session { flow: flow.clone(), upstream, requests: AtomicU64::new(0), denied: AtomicU64::new(0) });
        lock(&self.open).insert(flow.session, Arc::clone(&session));
        self.opened_total.fetch_add(1, Ordering::Relaxed);
        Listed { sessions: Arc::clone(self), session, backend: None }
    }

    pub(super) fn refused(&self) {
        self.refused_total.fetch_add(1, Ordering::Relaxed);
    }

    /// (sessions opened, connections refused) since the start.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.opened_total.load(Ordering::Relaxed), self.refused_total.load(Ordering::Relaxed))
    }

    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.open).len()
    }

    /// Every open session, oldest first.
    #[must_use]
    pub fn rows(&self) -> Vec<SessionRow> {
        let mut rows: Vec<SessionRow> = lock(&self.open).values().map(|session| session.row()).collect();
        rows.sort_by_key(|row| row.session);
        rows
    }

    /// The backend that handed out this cancel key, if its session belongs to the same workload as the asker.
    pub(super) fn backend(&self, asker: &Flow, process: i32, key: &Bytes) -> Option<Backend> {
        let backend = lock(&self.backends).get(&(process, key.clone())).cloned()?;
        let owner = backend.permit.flow();
        let same =
            owner.origin.workload.cgroup_id == asker.origin.workload.cgroup_id && owner.origin.orig_dst == asker.origin.orig_dst;
        same.then_some(backend)
    }
}

impl Listed {
    pub(super) fn register(&mut self, permit: &Permit, process: i32, key: Bytes) {
        lock(&self.sessions.backends).insert((process, key.clone()), Backend { permit: permit.clone() });
        self.backend = Some((process, key));
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(backend) = &self.backend {
            lock(&self.sessions.backends).remove(backend);
        }
        lock(&self.sessions.open).remove(&self.session.flow.session);
    }
}

impl Session {
    pub(super) fn asked(&self, allowed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if !allowed {
            self.denied.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn row(&self) -> SessionRow {
        let workload = &self.flow.origin.workload;
        let opened = self.flow.opened.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        SessionRow {
            session: self.flow.session,
            opened_unix_ms: u64::try_from(opened.as_millis()).unwrap_or(u64::MAX),
            workload: workload_label(workload),
            pid: workload.pid,
            uid: workload.uid,
            upstream: self.upstream.as_deref().map(str::to_owned),
            orig_dst: self.flow.origin.orig_dst.0,
            protocol: self.flow.protocol,
            requests: self.requests.load(Ordering::Relaxed),
            denied: self.denied.load(Ordering::Relaxed),
        }
    }
}

/// The shortest honest name of a workload: its given name, its unit, its program, its cgroup.
#[must_use]
pub fn workload_label(workload: &crate::flow::Workload) -> String {
    let exe = || workload.exe.as_ref().and_then(|exe| exe.file_name()).map(|name| name.to_string_lossy().into_owned());
    workload.name.clone().or_else(|| workload.unit.clone()).or_else(exe).unwrap_or_else(|| workload.cgroup.clone())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
