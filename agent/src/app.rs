//! Builds every part once, wires them, runs, drains.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle, time::sleep};
use tracing::{info, warn};

use crate::{
    cli::Exit,
    config::{Config, OnStop},
    control::{self, JournalStatus, PolicyStatus, Status},
    credential::{self, Broker, VersionKey, VersionKeyError},
    drain::{self, DRAIN_TIMEOUT, Drainer},
    intercept::{
        Designators, HEARTBEAT_PERIOD, Identities, InterceptConfig, InterceptError, Interceptor, OBJECT, Origins, Selector,
        cgroup_id, cgroup2_root, is_populated,
    },
    journal::{CommitterHandle, Event, Journal, JournalConfig, JournalError, Record},
    judge::Judge,
    mask::KnownSecrets,
    policy::{
        PolicySet,
        load::{LoadErrors, Loaded, load},
        object::CredentialSpec,
    },
    protocol::postgres::sql,
    proxy::{
        Context, Limits,
        catalog::Catalogs,
        listener::listen,
        resolve::Resolver,
        sessions::{SessionRow, Sessions},
    },
    tls::{Authority, AuthorityError, Originator},
};

/// A running agent.
pub struct App {
    config: Config,
    top_cgroup: PathBuf,
    started: Instant,
    context: Arc<Context>,
    policies: Arc<ArcSwap<PolicySet>>,
    last_error: Mutex<Option<String>>,
    reloading: tokio::sync::Mutex<()>,
    /// `None` once released.
    interceptor: Arc<Mutex<Option<Interceptor>>>,
    designators: Designators,
    beating: Arc<AtomicBool>,
    drainer: Drainer,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Cgroups of `weir run`, with their ids.
    enrolled: Mutex<Vec<(PathBuf, u64)>>,
    committer: Mutex<Option<CommitterHandle>>,
    listeners: Vec<SocketAddr>,
    /// Variables of this process's environment that credentials are read from.
    secret_variables: Vec<String>,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("control socket {path}: {cause}")]
    Control { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Intercept(#[from] InterceptError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("listen on {address}: {cause}")]
    Listen { address: SocketAddr, cause: io::Error },
    #[error("policies are not loaded, so weir does not start:\n{0}")]
    Policy(LoadErrors),
    #[error(transparent)]
    VersionKey(#[from] VersionKeyError),
}

impl StartError {
    /// The exit code that tells a script whose fault it is.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Policy(_) => Exit::Usage,
            Self::Intercept(InterceptError::AlreadyRunning { .. }) | Self::Journal(_) => Exit::Failed,
            Self::Authority(_) | Self::Control { .. } | Self::Intercept(_) | Self::Listen { .. } | Self::VersionKey(_) => {
                Exit::Host
            }
        }
    }
}

impl App {
    /// Starts every part, in the order in which they need each other: nothing is intercepted before everything can serve.
    ///
    /// # Errors
    /// The first part that cannot start; those before it are stopped again.
    pub async fn start(config: Config) -> Result<Arc<Self>, StartError> {
        if let Err(error) = credential::harden() {
            warn!(%error, "this process may be dumped: a core file could hold secrets");
        }
        let loaded = load_policies(&config, FIRST_GENERATION).map_err(StartError::Policy)?;
        let top_cgroup = match &config.top_cgroup {
            Some(path) => path.clone(),
            None => cgroup2_root()?,
        };
        // The lock of the interceptor comes first: everything after it belongs to one agent alone.
        let cgroup_root = cgroup2_root()?;
        let pin_dir = config.pin_dir.clone();
        let interceptor = Interceptor::attach(InterceptConfig { top_cgroup: top_cgroup.clone(), pin_dir })?;
        let (journal, committer) = Journal::open(JournalConfig::new(&config.journal))?;
        let authority = Authority::open(&config.state_dir)?;
        let version_key = VersionKey::open(&config.state_dir)?;
        let (bound, listeners) = bind_listeners().await?;

        let policies = Arc::new(ArcSwap::from_pointee(loaded.set));
        let designators = Designators::start(cgroup_root.clone(), top_cgroup.clone(), interceptor.cgroups())?;
        let identities = Identities::new(cgroup_root, designators.names());
        let origins = interceptor.origins();
        let (drainer, context) = build_context(&config, &policies, origins, identities, journal, authority, version_key);
        let app = Arc::new(Self {
            top_cgroup,
            started: Instant::now(),
            context: Arc::new(context),
            policies,
            last_error: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            interceptor: Arc::new(Mutex::new(Some(interceptor))),
            designators,
            beating: Arc::new(AtomicBool::new(true)),
            drainer,
            tasks: Mutex::default(),
            enrolled: Mutex::default(),
            committer: Mutex::new(Some(committer)),
            listeners,
            secret_variables: loaded.credentials.iter().flat_map(|spec| spec.variables()).map(str::to_owned).collect(),
            config,
        });
        app.run(bound, loaded.credentials).await?;
        Ok(app)
    }

    async fn run(self: &Arc<Self>, listeners: Vec<TcpListener>, credentials: Vec<Arc<CredentialSpec>>) -> Result<(), StartError> {
        self.note(Event::AgentStarted {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            ebpf_sha256: object_sha256().into(),
        })?;
        self.note_policy()?;
        self.context.broker.preload(&credentials).await;
        self.context.resolver.refresh().await;
        let slots = Arc::new(Semaphore::new(self.context.limits.sessions_max));
        for listener in listeners {
            self.spawn(listen(Arc::clone(&self.context), listener, Arc::clone(&slots)));
        }
        self.spawn(self.context.resolver.clone().keep_fresh());
        let path = self.config.control.clone();
        let socket = control::bind(&path).map_err(|cause| StartError::Control { path, cause })?;
        self.spawn(control::serve(socket, Arc::clone(self)));
        // Last: from here on the kernel sends connections.
        let port = |v6: bool| self.listeners.iter().find(|address| address.is_ipv6() == v6).map(SocketAddr::port);
        if let Some(interceptor) = &*lock(&self.interceptor) {
            interceptor.publish(port(false), port(true))?;
            interceptor.heartbeat()?;
        }
        self.designate()?;
        self.keep_beating();
        info!(top_cgroup = %self.top_cgroup.display(), listeners = ?self.listeners, "weir is running");
        Ok(())
    }

    /// Loads the policies again; the last good set stays in force when they are bad. Answers generation and digest.
    ///
    /// # Errors
    /// Everything that is wrong with the files, as one text for people.
    pub async fn reload(&self) -> Result<(u64, String), String> {
        let _one_at_a_time = self.reloading.lock().await;
        let generation = self.policies.load().generation + 1;
        match load_policies(&self.config, generation) {
            Ok(loaded) => {
                let answer = (loaded.set.generation, loaded.set.digest.clone());
                self.context.broker.preload(&loaded.credentials).await;
                self.policies.store(Arc::new(loaded.set));
                *lock(&self.last_error) = None;
                self.note_policy().map_err(|error| error.to_string())?;
                self.context.resolver.refresh().await;
                self.designate().map_err(|error| error.to_string())?;
                Ok(answer)
            }
            Err(errors) => {
                let text = errors.to_string();
                *lock(&self.last_error) = Some(text.clone());
                let scrubber = self.context.judge.known.scrubber();
                let errors = errors.0.iter().map(|error| scrubber.text(error.to_string().as_bytes())).collect();
                let _ = self.note(Event::PolicyRejected { errors });
                Err(text)
            }
        }
    }

    /// Protects a cgroup's processes as the workload `name`.
    ///
    /// # Errors
    /// The cgroup does not exist, is outside the top cgroup (the kernel would never see its connections), or the table is full.
    pub fn enroll(&self, name: &str, cgroup: &Path) -> Result<(), InterceptError> {
        let outside = || {
            let cause = format!("not below {}, where the kernel programs are attached", self.top_cgroup.display());
            InterceptError::Os { operation: "enroll", path: cgroup.to_owned(), cause: io::Error::other(cause) }
        };
        let resolved = |path: &Path| {
            path.canonicalize().map_err(|cause| InterceptError::Os { operation: "enroll", path: path.to_owned(), cause })
        };
        if !resolved(cgroup)?.starts_with(resolved(&self.top_cgroup)?) {
            return Err(outside());
        }
        let id = cgroup_id(cgroup).map_err(|cause| InterceptError::Os { operation: "enroll", path: cgroup.to_owned(), cause })?;
        self.designators.register(name, id)?;
        lock(&self.enrolled).push((cgroup.to_owned(), id));
        Ok(())
    }

    /// Ends `enroll`: the cgroup is protected only if a policy designates it. While a process lives in it, it stays protected.
    pub fn withdraw(&self, cgroup: &Path) {
        let mut enrolled = lock(&self.enrolled);
        let Some(index) = enrolled.iter().position(|(path, _)| path == cgroup) else { return };
        let (path, id) = enrolled.swap_remove(index);
        if is_populated(&path) {
            warn!(cgroup = %path.display(), "the command is gone but left processes behind: they stay designated");
            return;
        }
        if let Err(error) = self.designators.unregister(id) {
            warn!(%error, "cannot withdraw a workload");
        }
    }

    /// What must not be handed down to a command that this process starts.
    #[must_use]
    pub fn secret_variables(&self) -> &[String] {
        &self.secret_variables
    }

    #[must_use]
    pub fn sessions(&self) -> Vec<SessionRow> {
        self.context.sessions.rows()
    }

    #[must_use]
    pub fn status(&self) -> Status {
        let set = self.policies.load();
        let (sessions_total, refused_total) = self.context.sessions.totals();
        let journal = &self.context.judge.journal;
        let journal_status = journal.status();
        let error = journal.healthy().err().map(|error| error.to_string());
        Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            top_cgroup: self.top_cgroup.clone(),
            pins: self.config.pin_dir.clone(),
            ca: self.context.authority.certificate_path().to_owned(),
            listeners: self.listeners.clone(),
            policy: PolicyStatus {
                generation: set.generation,
                digest: set.digest.clone(),
                policies: set.policies.iter().map(|policy| policy.name.to_string()).collect(),
                upstreams: set.upstreams.iter().map(|upstream| upstream.name.to_string()).collect(),
                last_error: lock(&self.last_error).clone(),
            },
            designated: self.designated(),
            sessions_open: self.context.sessions.count(),
            sessions_total,
            refused_total,
            journal: JournalStatus {
                directory: journal_status.directory,
                records: journal_status.records,
                healthy: error.is_none(),
                error,
            },
            observe: self.config.observe,
        }
    }

    /// Waits until no session is open, at most `limit`.
    pub async fn wait_idle(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.context.sessions.count() > 0 && Instant::now() < deadline {
            sleep(IDLE_CHECK).await;
        }
    }

    /// Drains, closes the journal, and leaves the kernel programs as `how` says.
    pub async fn stop(&self, how: OnStop) {
        self.drainer.start();
        self.wait_idle(DRAIN_TIMEOUT).await;
        self.drainer.end();
        self.wait_idle(FAREWELL_TIMEOUT).await;
        self.beating.store(false, Ordering::Release);
        // Dropped without release, it tells the kernel that nobody listens any more: refused at once.
        let interceptor = lock(&self.interceptor).take();
        if let (OnStop::Release, Some(interceptor)) = (how, interceptor)
            && let Err(error) = interceptor.release()
        {
            warn!(%error, "cannot release the kernel programs: designated workloads stay refused");
        }
        let _ = self.note(Event::AgentStopped {});
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
        let committer = lock(&self.committer).take();
        let closed = tokio::task::spawn_blocking(move || committer.map_or(Ok(()), CommitterHandle::close)).await;
        if let Ok(Err(error)) = closed {
            warn!(%error, "the journal did not close cleanly");
        }
        let _ = std::fs::remove_file(&self.config.control);
    }

    fn designate(&self) -> Result<(), InterceptError> {
        let selectors = self.policies.load().selectors().filter_map(kernel_selector).collect();
        self.designators.select(selectors)
    }

    fn designated(&self) -> Vec<String> {
        let interceptor = lock(&self.interceptor);
        let ids = interceptor.as_ref().map_or(Ok(Vec::new()), Interceptor::designated).unwrap_or_default();
        let names = self.designators.names();
        ids.into_iter().map(|(id, _)| names(id).unwrap_or_else(|| format!("cgroup {id}"))).collect()
    }

    /// A thread of its own: a runtime that is busy must not look like a dead agent.
    fn keep_beating(self: &Arc<Self>) {
        let (interceptor, beating) = (Arc::clone(&self.interceptor), Arc::clone(&self.beating));
        let beat = move || {
            while beating.load(Ordering::Acquire) {
                if let Some(Err(error)) = lock(&interceptor).as_ref().map(Interceptor::heartbeat) {
                    warn!(%error, "heartbeat failed: the kernel will refuse designated workloads");
                }
                thread::sleep(HEARTBEAT_PERIOD);
            }
        };
        if let Err(error) = thread::Builder::new().name("weir-heartbeat".to_owned()).spawn(beat) {
            warn!(%error, "no heartbeat: the kernel will refuse designated workloads");
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.tasks).push(tokio::spawn(task));
    }

    fn note_policy(&self) -> Result<(), JournalError> {
        let set = self.policies.load();
        self.note(Event::PolicyApplied { generation: set.generation, digest: set.digest.as_str().into() })
    }

    fn note(&self, event: Event) -> Result<(), JournalError> {
        self.context.judge.journal.record(Record { time: SystemTime::now(), session: None, event }).map(drop)
    }
}

fn build_context(
    config: &Config,
    policies: &Arc<ArcSwap<PolicySet>>,
    origins: Arc<dyn Origins>,
    identities: Identities,
    journal: Journal,
    authority: Authority,
    version_key: VersionKey,
) -> (Drainer, Context) {
    let known = Arc::new(KnownSecrets::default());
    let resolved = Arc::new(ArcSwap::from_pointee(std::collections::HashMap::new()));
    let judge = Judge { policies: Arc::clone(policies), resolved: Arc::clone(&resolved), journal, known: Arc::clone(&known) };
    let (drainer, drain) = drain::pair();
    let context = Context {
        origins,
        identities,
        judge: Arc::new(judge),
        broker: Broker::new(known, version_key),
        authority,
        originator: Originator::default(),
        sessions: Arc::new(Sessions::default()),
        catalogs: Catalogs::default(),
        resolver: Resolver::new(Arc::clone(policies), resolved),
        limits: Limits { handshake_timeout: config.handshake_timeout, ..Limits::default() },
        drain,
    };
    (drainer, context)
}

fn load_policies(config: &Config, generation: u64) -> Result<Loaded, LoadErrors> {
    let reader = |text: &[u8]| sql::read(text).statement;
    let mut loaded = load(&config.policies, &reader, generation)?;
    if config.observe {
        loaded.set = loaded.set.observing();
    }
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    Ok(loaded)
}

/// One listener for each family, on ports of the kernel's choice. A host without IPv6 has one.
async fn bind_listeners() -> Result<(Vec<TcpListener>, Vec<SocketAddr>), StartError> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let mut bound = vec![TcpListener::bind(v4).await.map_err(|cause| StartError::Listen { address: v4, cause })?];
    match TcpListener::bind(v6).await {
        Ok(listener) => bound.push(listener),
        Err(cause) => warn!(address = %v6, %cause, "no IPv6 listener: IPv6 connections of workloads are refused"),
    }
    let addresses = bound.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    Ok((bound, addresses))
}

/// The part of a selector that the kernel can match; `exe` and `uid` refine it later, in the proxy.
fn kernel_selector(selector: &crate::policy::object::WorkloadSelector) -> Option<Selector> {
    if let Some(unit) = &selector.unit {
        return Some(Selector::Unit(unit.clone()));
    }
    if let Some(cgroup) = &selector.cgroup {
        return Some(Selector::Cgroup(cgroup.matcher.clone()));
    }
    selector.name.clone().map(Selector::Name)
}

/// The kernel programs that this binary carries, by hash: what an investigator compares with the manifest.
fn object_sha256() -> String {
    Sha256::digest(OBJECT).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const FIRST_GENERATION: u64 = 1;
const IDLE_CHECK: Duration = Duration::from_millis(20);
/// After the drain is over: time for the last words of sessions that were still open.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(3);
