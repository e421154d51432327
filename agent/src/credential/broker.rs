//! Hands out credentials against a permit.

use std::sync::Arc;

use super::Secret;
use crate::{mask::KnownSecrets, policy::Permit};

/// One session's hold on one version of a credential. Operations instead of values wherever the protocol allows.
pub struct Pin {
    pub(super) name: Arc<str>,
    pub(super) version: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) token: Option<Secret>,
}

impl Pin {
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
}

/// Why a credential cannot be had. Names the credential and the source, never the value.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("credential {name}: {source_kind} {subject}: {cause}")]
    Unavailable { name: Arc<str>, source_kind: &'static str, subject: String, cause: String },
}

impl Broker {
    #[must_use]
    pub fn new(known: Arc<KnownSecrets>) -> Self {
        Self { known }
    }

    /// Reads what the permit's policy injects; `None` when it injects nothing. The values are known to the masks before this returns.
    ///
    /// # Errors
    /// The source cannot be read: the session must be refused.
    pub async fn acquire(&self, permit: &Permit) -> Result<Option<Arc<Pin>>, CredentialError> {
        let _ = (permit, &self.known);
        todo!()
    }
}
