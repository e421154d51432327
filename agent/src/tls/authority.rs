//! Weir's own certificate authority and the leaves that it shows to workloads.
//!
//! The authority is made once per host, in the state directory, and stays: a client that trusts it goes on trusting it after
//! an upgrade. Its key never leaves the agent (0600, and the agent is not dumpable).

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The local authority with its cache of leaves.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_path: PathBuf,
    leaves: Mutex<HashMap<Vec<String>, Leaf>>,
}

/// A leaf ready to serve.
struct Leaf {
    made: SystemTime,
    config: Arc<ServerConfig>,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("authority: {operation} {path}: {cause}")]
    File { operation: &'static str, path: PathBuf, cause: io::Error },
    #[error("authority: {operation}: {cause}")]
    Certificate { operation: &'static str, cause: String },
}

impl Authority {
    /// Opens the authority in `directory` (`ca.pem`, `ca.key`), or makes it when there is none.
    ///
    /// # Errors
    /// The directory cannot be written, or what is in it is not a key and a certificate that belong together.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let certificate_path = directory.join("ca.pem");
        let key_path = directory.join("ca.key");
        if !key_path.exists() {
            create(directory, &certificate_path, &key_path)?;
        }
        let key = read(&key_path)?;
        let certificate = read(&certificate_path)?;
        let key = KeyPair::from_pem(&key).map_err(|cause| certificate_error("read ca.key", &cause))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(|cause| certificate_error("read ca.pem", &cause))?;
        Ok(Self { issuer, certificate_path, leaves: Mutex::default() })
    }

    /// Where clients find the certificate to trust.
    #[must_use]
    pub fn certificate_path(&self) -> &Path {
        &self.certificate_path
    }

    /// A server configuration with a leaf for these names and addresses, from the cache when there is one.
    ///
    /// # Errors
    /// The leaf cannot be made, for example because a name is no DNS name.
    pub fn server_config(&self, names: &[String], address: IpAddr) -> Result<Arc<ServerConfig>, AuthorityError> {
        let mut subject_names: Vec<String> = names.to_vec();
        subject_names.push(address.to_string());
        let now = SystemTime::now();
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.get(&subject_names)
            && now.duration_since(leaf.made).is_ok_and(|age| age < LEAF_REUSE_MAX)
        {
            return Ok(Arc::clone(&leaf.config));
        }
        let config = Arc::new(self.make_leaf(&subject_names)?);
        if leaves.len() >= LEAVES_MAX {
            leaves.clear();
        }
        leaves.insert(subject_names, Leaf { made: now, config: Arc::clone(&config) });
        Ok(config)
    }

    fn make_leaf(&self, names: &[String]) -> Result<ServerConfig, AuthorityError> {
        let key = KeyPair::generate().map_err(|cause| certificate_error("make a leaf's key", &cause))?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(|cause| certificate_error("name a leaf", &cause))?;
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("weir", String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + LEAF_VALIDITY).into();
        let leaf = params.signed_by(&key, &self.issuer).map_err(|cause| certificate_error("sign a leaf", &cause))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key))
            .map_err(|cause| certificate_error("configure a leaf", &cause))
    }
}

fn create(directory: &Path, certificate_path: &Path, key_path: &Path) -> Result<(), AuthorityError> {
    fs::create_dir_all(directory).map_err(|cause| AuthorityError::File {
        operation: "create",
        path: directory.to_owned(),
        cause,
    })?;
    let key = KeyPair::generate().map_err(|cause| certificate_error("make the key", &cause))?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("weir authority of {}", host_name()));
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + AUTHORITY_VALIDITY).into();
    let certificate = params.self_signed(&key).map_err(|cause| certificate_error("sign itself", &cause))?;
    // The key goes last: its presence is what says that the authority is complete.
    write_new(certificate_path, certificate.pem().as_bytes(), 0o644)?;
    write_new(key_path, zeroize::Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)
}

/// Writes beside the target and renames, so that a reader never sees half a file.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let temporary = path.with_extension(format!("new.{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|cause| AuthorityError::File { operation: "write", path: path.to_owned(), cause })
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<String>, AuthorityError> {
    let text =
        fs::read_to_string(path).map_err(|cause| AuthorityError::File { operation: "read", path: path.to_owned(), cause })?;
    Ok(zeroize::Zeroizing::new(text))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn certificate_error(operation: &'static str, cause: &impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Certificate { operation, cause: cause.to_string() }
}

const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Clients whose clock runs a little behind must not see a certificate from the future.
const CLOCK_SKEW: Duration = Duration::from_secs(86_400);
const LEAF_VALIDITY: Duration = Duration::from_secs(7 * 86_400);
/// A leaf is made anew long before it ends, so that no long-lived cache serves a dead one.
const LEAF_REUSE_MAX: Duration = Duration::from_secs(86_400);
/// Leaves in the cache; when it is full it starts anew.
const LEAVES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn makes_an_authority_once_and_keeps_its_key_private() {
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::open(directory.path()).unwrap();
        let made = fs::read_to_string(first.certificate_path()).unwrap();
        let again = Authority::open(directory.path()).unwrap();
        assert_eq!(fs::read_to_string(again.certificate_path()).unwrap(), made);
        let mode = fs::metadata(directory.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn reuses_a_leaf_for_the_same_names() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let names = ["db.internal".to_owned()];
        let first = authority.server_config(&names, IpAddr::from([127, 0, 0, 5])).unwrap();
        let second = authority.server_config(&names, IpAddr::from([127, 0, 0, 5])).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }
}
