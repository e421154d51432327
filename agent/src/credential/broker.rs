//! Hands out credentials against a permit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use tracing::warn;

use super::{
    Secret,
    source::{self, Stamp},
    version::VersionKey,
};
use crate::{
    mask::KnownSecrets,
    policy::{
        Permit,
        object::{CredentialSpec, SecretSource, Value},
    },
};

/// One session's hold on one version of a credential. Operations instead of values wherever the protocol allows.
pub struct Pin {
    pub(super) name: Arc<str>,
    pub(super) version: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) token: Option<Secret>,
}

impl Pin {
    pub(crate) fn new(
        name: Arc<str>,
        version: String,
        user: Option<String>,
        password: Option<Secret>,
        token: Option<Secret>,
    ) -> Self {
        Self { name, version, user, password, token }
    }

    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
    /// Names the value without telling it: a keyed fingerprint, 16 hexadecimal digits.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }
    #[must_use]
    pub fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}

/// Reads sources, remembers nothing longer than its time, tells the masks what to look for.
pub struct Broker {
    known: Arc<KnownSecrets>,
    key: VersionKey,
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

/// Why a credential cannot be had. Names the credential and the source, never the value.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("credential {name}: {source_kind} {subject}: {cause}")]
    Unavailable { name: Arc<str>, source_kind: &'static str, subject: String, cause: String },
}

impl CredentialError {
    /// What a workload may be told: not where the secret lies.
    #[must_use]
    pub fn public(&self) -> String {
        let Self::Unavailable { name, .. } = self;
        format!("credential {name} cannot be read; the agent's journal says why")
    }
}

impl Broker {
    /// `key` makes the versions: one host's versions can be compared, and not guessed from a list of passwords.
    #[must_use]
    pub fn new(known: Arc<KnownSecrets>, key: VersionKey) -> Self {
        Self { known, key, slots: Mutex::default() }
    }

    /// Reads what the permit's policy injects; `None` when it injects nothing. The values are known to the masks before this returns.
    /// Cancel safe.
    ///
    /// # Errors
    /// The source cannot be read, or the value could not be masked: the session must be refused.
    pub async fn acquire(&self, permit: &Permit) -> Result<Option<Arc<Pin>>, CredentialError> {
        match permit.inject() {
            Some(inject) => self.pin(&inject.credential).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads what can be read without running a program, so that the masks know the values before the first session opens. What
    /// cannot be read yet is no error: a session that needs it is refused.
    pub async fn preload(&self, specs: &[Arc<CredentialSpec>]) {
        for spec in specs.iter().filter(|spec| !spec.runs_a_program()) {
            if let Err(error) = self.pin(spec).await {
                warn!(%error, "sessions that need this credential are refused");
            }
        }
    }

    /// Upstream refused a login with this pin: the next `acquire` reads the sources again.
    pub fn reject(&self, pin: &Pin) {
        let slots = lock(&self.slots);
        let slots_of = slots.iter().filter(|(key, _)| key.name == pin.name);
        slots_of.for_each(|(_, slot)| {
            let mut answer = lock(&slot.answer);
            // A newer version than the refused one stays.
            answer.take_if(|answer| answer.pin.as_ref().is_ok_and(|cached| cached.version == pin.version));
        });
    }

    async fn pin(&self, spec: &CredentialSpec) -> Result<Arc<Pin>, CredentialError> {
        let slot = self.slot(Key::of(spec));
        // A file that was replaced, removed or opened to others since is read again at once.
        let stamps = stamps(spec);
        if let Some(answer) = slot.fresh(&stamps) {
            return answer;
        }
        // One reads, the others wait for its answer; if it is cancelled, the next one reads.
        let _flight = slot.flight.lock().await;
        if let Some(answer) = slot.fresh(&stamps) {
            return answer;
        }
        let pin = self.read(spec).await.map(Arc::new);
        let time = match &pin {
            Ok(_) => FRESH,
            Err(_) if spec.runs_a_program() => FAILED,
            // Looking at a file again costs nothing, and whoever has just put it there expects it to be seen.
            Err(_) => Duration::ZERO,
        };
        *lock(&slot.answer) = Some(Answer { pin: pin.clone(), until: Instant::now() + time, stamps });
        pin
    }

    fn slot(&self, key: Key) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        if slots.len() >= SLOTS_MAX {
            // Reloads leave old declarations behind. Whoever reads just now keeps its slot alive.
            slots.retain(|_, slot| lock(&slot.answer).as_ref().is_some_and(|answer| answer.until > Instant::now()));
        }
        Arc::clone(slots.entry(key).or_default())
    }

    async fn read(&self, spec: &CredentialSpec) -> Result<Pin, CredentialError> {
        let user = self.read_user(spec).await?;
        let password = self.read_secret(spec, spec.password.as_ref()).await?;
        let token = self.read_secret(spec, spec.token.as_ref()).await?;
        if let (Some(user), Some(password)) = (&user, &password) {
            // Basic authentication sends the two as one value.
            let pair = Zeroizing::new([user.as_bytes(), b":", password.expose()].concat());
            self.register(spec, ("pair", "user:password".to_owned()), &pair)?;
        }
        let version = self.version(spec, user.as_deref(), [&password, &token]);
        Ok(Pin::new(Arc::clone(&spec.name), version, user, password, token))
    }

    async fn read_user(&self, spec: &CredentialSpec) -> Result<Option<String>, CredentialError> {
        let source = match &spec.user {
            None => return Ok(None),
            Some(Value::Literal(user)) => return Ok(Some(user.clone())),
            Some(Value::From(source)) => source,
        };
        let value = source::read(source).await.map_err(|error| unavailable(spec, error))?;
        let user = str::from_utf8(value.expose()).map(str::to_owned);
        user.map(Some).map_err(|_| failure(spec, "user", String::new(), "not UTF-8".to_owned()))
    }

    async fn read_secret(&self, spec: &CredentialSpec, from: Option<&SecretSource>) -> Result<Option<Secret>, CredentialError> {
        let Some(from) = from else { return Ok(None) };
        let secret = source::read(from).await.map_err(|error| unavailable(spec, error))?;
        self.register(spec, source::describe(from), secret.expose())?;
        Ok(Some(secret))
    }

    /// A value that cannot be masked must not be injected.
    fn register(&self, spec: &CredentialSpec, of: (&'static str, String), value: &[u8]) -> Result<(), CredentialError> {
        self.known.register(value).map_err(|cause| failure(spec, of.0, of.1, cause.to_string()))
    }

    fn version(&self, spec: &CredentialSpec, user: Option<&str>, secrets: [&Option<Secret>; 2]) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.expose()) else {
            return String::new(); // HMAC takes keys of any length
        };
        let secrets = secrets.map(|secret| secret.as_ref().map(Secret::expose));
        for part in [Some(spec.name.as_bytes()), user.map(str::as_bytes), secrets[0], secrets[1]] {
            mac.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            mac.update(part.unwrap_or_default());
        }
        mac.finalize().into_bytes().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A credential as it is declared: a changed declaration is another one, also under the same name.
#[derive(Eq, Hash, PartialEq)]
struct Key {
    name: Arc<str>,
    user: Option<Result<String, SecretSource>>,
    password: Option<SecretSource>,
    token: Option<SecretSource>,
}

impl Key {
    fn of(spec: &CredentialSpec) -> Self {
        let user = spec.user.as_ref().map(|user| match user {
            Value::Literal(user) => Ok(user.clone()),
            Value::From(source) => Err(source.clone()),
        });
        Self { name: Arc::clone(&spec.name), user, password: spec.password.clone(), token: spec.token.clone() }
    }
}

#[derive(Default)]
struct Slot {
    /// Held while the sources are read.
    flight: tokio::sync::Mutex<()>,
    answer: Mutex<Option<Answer>>,
}

struct Answer {
    pin: Result<Arc<Pin>, CredentialError>,
    until: Instant,
    /// Of the source files, taken before they were read.
    stamps: Stamps,
}

type Stamps = [Option<Stamp>; 3];

fn stamps(spec: &CredentialSpec) -> Stamps {
    let user = match &spec.user {
        Some(Value::From(source)) => Some(source),
        Some(Value::Literal(_)) | None => None,
    };
    [user, spec.password.as_ref(), spec.token.as_ref()].map(|source| source.and_then(source::stamp))
}

impl Slot {
    fn fresh(&self, stamps: &Stamps) -> Option<Result<Arc<Pin>, CredentialError>> {
        // What is too old is forgotten at once: the value lives on in sessions only.
        let mut answer = lock(&self.answer);
        answer.take_if(|answer| answer.until <= Instant::now() || answer.stamps != *stamps);
        answer.as_ref().map(|answer| answer.pin.clone())
    }
}

fn unavailable(spec: &CredentialSpec, error: source::SourceError) -> CredentialError {
    failure(spec, error.kind, error.subject, error.cause)
}

fn failure(spec: &CredentialSpec, source_kind: &'static str, subject: String, cause: String) -> CredentialError {
    CredentialError::Unavailable { name: Arc::clone(&spec.name), source_kind, subject, cause }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a value is used without looking again: a rotated secret is seen after this time.
const FRESH: Duration = Duration::from_secs(5);
/// How long a source that is down is left alone: a pool that reconnects in a loop must not make it worse.
const FAILED: Duration = Duration::from_secs(2);
const SLOTS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        io::Write,
        os::unix::fs::OpenOptionsExt,
        path::{Path, PathBuf},
    };

    use base64::{Engine, engine::general_purpose::STANDARD};
    use tempfile::TempDir;

    use super::*;

    struct Desk {
        directory: TempDir,
        broker: Broker,
        known: Arc<KnownSecrets>,
    }

    fn desk() -> Desk {
        let known = Arc::new(KnownSecrets::default());
        let directory = TempDir::new().unwrap();
        let broker = Broker::new(Arc::clone(&known), VersionKey::open(directory.path()).unwrap());
        Desk { directory, broker, known }
    }

    fn write(path: &Path, content: &str) {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        options.open(path).unwrap().write_all(content.as_bytes()).unwrap();
    }

    impl Desk {
        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn spec(&self, password: &str) -> CredentialSpec {
            write(&self.path("password"), password);
            CredentialSpec {
                name: "db".into(),
                user: Some(Value::Literal("orders_rw".to_owned())),
                password: Some(SecretSource::File(self.path("password"))),
                token: None,
            }
        }
    }

    #[tokio::test]
    async fn values_are_known_to_the_masks_when_the_pin_is_handed_out() {
        let desk = desk();
        let pin = desk.broker.pin(&desk.spec("correct horse\n")).await.unwrap();
        assert_eq!(pin.password().unwrap().expose(), b"correct horse");
        let scrubber = desk.known.scrubber();
        assert!(scrubber.finds(b"the password is correct horse."));
        let basic = format!("Authorization: Basic {}", STANDARD.encode("orders_rw:correct horse"));
        let scrubbed = String::from_utf8(scrubber.scrub(basic.as_bytes()).into_owned()).unwrap();
        assert!(!scrubbed.contains(&STANDARD.encode("orders_rw:correct horse")[..20]), "{scrubbed}");
        assert!(!format!("{pin:?}").contains("horse"));
    }

    #[tokio::test]
    async fn a_value_that_cannot_be_masked_is_not_handed_out() {
        let desk = desk();
        let error = desk.broker.pin(&desk.spec("ab")).await.unwrap_err();
        assert!(error.to_string().starts_with("credential db: file "), "{error}");
        assert!(error.public().contains("db") && !error.public().contains('/'), "{}", error.public());
    }

    #[tokio::test]
    async fn a_refused_login_makes_the_next_read_the_source_again() {
        let desk = desk();
        let cat = SecretSource::Exec(vec!["cat".to_owned(), desk.path("password").display().to_string()]);
        let spec = CredentialSpec { password: Some(cat), ..desk.spec("before rotation") };
        let before = desk.broker.pin(&spec).await.unwrap();
        write(&desk.path("password"), "after rotation");
        let cached = desk.broker.pin(&spec).await.unwrap();
        assert_eq!(cached.version(), before.version());
        desk.broker.reject(&cached);
        let after = desk.broker.pin(&spec).await.unwrap();
        assert_eq!(after.password().unwrap().expose(), b"after rotation");
        assert_ne!(after.version(), before.version());
        desk.broker.reject(&before);
        write(&desk.path("password"), "third value");
        assert_eq!(desk.broker.pin(&spec).await.unwrap().version(), after.version(), "an old refusal does not count");
    }

    #[tokio::test]
    async fn a_file_that_changed_is_read_at_once() {
        let desk = desk();
        let spec = desk.spec("before rotation");
        let before = desk.broker.pin(&spec).await.unwrap();
        assert_eq!(desk.broker.pin(&spec).await.unwrap().version(), before.version());
        write(&desk.path("password"), "after the rotation");
        assert_eq!(desk.broker.pin(&spec).await.unwrap().password().unwrap().expose(), b"after the rotation");
        fs::remove_file(desk.path("password")).unwrap();
        desk.broker.pin(&spec).await.unwrap_err();
        write(&desk.path("password"), "back again");
        desk.broker.pin(&spec).await.unwrap();
    }

    #[tokio::test]
    async fn versions_name_the_value_on_one_host_only() {
        let (desk, other) = (desk(), desk());
        let spec = desk.spec("same value");
        let first = desk.broker.pin(&spec).await.unwrap();
        desk.broker.reject(&first);
        assert_eq!(desk.broker.pin(&spec).await.unwrap().version(), first.version());
        assert_ne!(other.broker.pin(&spec).await.unwrap().version(), first.version());
        let restarted = Broker::new(Arc::default(), VersionKey::open(desk.directory.path()).unwrap());
        assert_eq!(restarted.pin(&spec).await.unwrap().version(), first.version());
        assert_eq!(first.version().len(), 16);
    }

    #[tokio::test]
    async fn many_sessions_at_once_read_the_source_once() {
        let desk = desk();
        let marks = desk.path("marks");
        let script = format!("echo x >> {}; sleep 0.1; echo token-value", marks.display());
        let token = SecretSource::Exec(vec!["sh".to_owned(), "-c".to_owned(), script]);
        let spec = CredentialSpec { name: "api".into(), user: None, password: None, token: Some(token) };
        let pins = tokio::join!(desk.broker.pin(&spec), desk.broker.pin(&spec), desk.broker.pin(&spec));
        for pin in [pins.0, pins.1, pins.2] {
            assert_eq!(pin.unwrap().token().unwrap().expose(), b"token-value");
        }
        assert_eq!(fs::read_to_string(marks).unwrap(), "x\n");
    }

    #[tokio::test]
    async fn a_program_that_fails_is_left_alone_for_a_while() {
        let desk = desk();
        let cat = SecretSource::Exec(vec!["cat".to_owned(), desk.path("password").display().to_string()]);
        let spec = CredentialSpec { password: Some(cat), ..desk.spec("x") };
        fs::remove_file(desk.path("password")).unwrap();
        desk.broker.pin(&spec).await.unwrap_err();
        write(&desk.path("password"), "back again");
        desk.broker.pin(&spec).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_changed_declaration_is_another_credential() {
        let desk = desk();
        let spec = desk.spec("first value");
        let first = desk.broker.pin(&spec).await.unwrap();
        write(&desk.path("other"), "second value");
        let changed = CredentialSpec { password: Some(SecretSource::File(desk.path("other"))), ..spec };
        let second = desk.broker.pin(&changed).await.unwrap();
        assert_ne!(first.version(), second.version());
    }
}
