//! The upstream leg: as much verification as the policy demands, and the channel binding of what was reached.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::SystemTime,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    policy::object::{TlsMode, UpstreamTls},
    protocol::TlsFacts,
};

/// Makes verified connections; keeps the parsed roots of each CA file.
#[derive(Default)]
pub struct Originator {
    configs: Mutex<HashMap<ConfigKey, Arc<ClientConfig>>>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct ConfigKey {
    verify: Verify,
    /// With its modification time: a renewed bundle is read again.
    ca: Option<(PathBuf, SystemTime)>,
    alpn: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Verify {
    Chain,
    Full,
    Nothing,
}

#[derive(Debug, thiserror::Error)]
pub enum OriginateError {
    #[error("ca file {path}: {cause}")]
    CaFile { path: PathBuf, cause: io::Error },
    #[error("ca file {path}: no certificate in it")]
    CaEmpty { path: PathBuf },
    #[error("system roots: none found; name a ca file in the upstream's tls section")]
    NoSystemRoots,
    #[error("{name}: not a server name or address")]
    ServerName { name: String },
    #[error("{0}")]
    Tls(String),
}

impl Originator {
    /// Does the handshake as `tls` demands and returns the stream with its facts. `name` is a host name or an address.
    ///
    /// # Errors
    /// The roots cannot be read, the name is unusable, or the handshake fails; nothing but the handshake was sent.
    pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        tls: &UpstreamTls,
        name: &str,
        alpn: &[&[u8]],
    ) -> Result<(TlsStream<S>, TlsFacts), OriginateError> {
        let config = self.config(tls, alpn)?;
        let server_name =
            ServerName::try_from(name.to_owned()).map_err(|_| OriginateError::ServerName { name: name.to_owned() })?;
        let stream = TlsConnector::from(config)
            .connect(server_name, stream)
            .await
            .map_err(|cause| OriginateError::Tls(explain(&cause)))?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let facts = TlsFacts {
            server_end_point: leaf.and_then(server_end_point),
            verified: matches!(tls.mode, TlsMode::VerifyCa | TlsMode::VerifyFull),
        };
        Ok((stream, facts))
    }

    fn config(&self, tls: &UpstreamTls, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, OriginateError> {
        let verify = match tls.mode {
            TlsMode::Off | TlsMode::Require => Verify::Nothing,
            TlsMode::VerifyCa => Verify::Chain,
            TlsMode::VerifyFull => Verify::Full,
        };
        let ca = match (&tls.ca, verify) {
            (Some(path), Verify::Chain | Verify::Full) => Some((path.clone(), modified(path)?)),
            _ => None,
        };
        let key = ConfigKey { verify, ca, alpn: alpn.iter().map(|name| name.to_vec()).collect() };
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = configs.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(build(&key)?);
        if configs.len() >= CONFIGS_MAX {
            configs.clear();
        }
        configs.insert(key, Arc::clone(&config));
        Ok(config)
    }
}

fn build(key: &ConfigKey) -> Result<ClientConfig, OriginateError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match key.verify {
        Verify::Nothing => Arc::new(AcceptAny(Arc::clone(&provider))),
        Verify::Chain => Arc::new(AnyName(web_pki(key, &provider)?)),
        Verify::Full => web_pki(key, &provider)?,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|cause| OriginateError::Tls(cause.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols.clone_from(&key.alpn);
    Ok(config)
}

fn web_pki(key: &ConfigKey, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, OriginateError> {
    let roots = match &key.ca {
        Some((path, _)) => Arc::new(read_roots(path)?),
        None => system_roots()?,
    };
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|cause| OriginateError::Tls(cause.to_string()))
}

/// Can these certificates be used to verify an upstream?
///
/// # Errors
/// The file cannot be read, or holds no certificate.
pub fn check_ca(path: &Path) -> Result<(), OriginateError> {
    read_roots(path).map(drop)
}

fn read_roots(path: &Path) -> Result<RootCertStore, OriginateError> {
    let text = fs::read(path).map_err(|cause| OriginateError::CaFile { path: path.to_owned(), cause })?;
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err(OriginateError::CaEmpty { path: path.to_owned() }) } else { Ok(roots) }
}

fn system_roots() -> Result<Arc<RootCertStore>, OriginateError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() { Err(OriginateError::NoSystemRoots) } else { Ok(Arc::clone(roots)) }
}

fn modified(path: &Path) -> Result<SystemTime, OriginateError> {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .map_err(|cause| OriginateError::CaFile { path: path.to_owned(), cause })
}

/// rustls wraps its errors in `io::Error`; what the operator needs is the certificate's fault.
fn explain(error: &io::Error) -> String {
    error.get_ref().map_or_else(|| error.to_string(), ToString::to_string)
}

/// The leaf's hash as RFC 5929 section 4.1 wants it: by the certificate's signature hash, MD5 and SHA-1 replaced by SHA-256.
/// `None` for signature algorithms without a hash of their own (Ed25519): there is no such binding then.
fn server_end_point(leaf: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    Some(match algorithm.as_str() {
        // md5, sha1 and sha256 with RSA; sha1 and sha256 with ECDSA.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Sha256::digest(leaf).to_vec(),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(leaf).to_vec(),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(leaf).to_vec(),
        _ => return None,
    })
}

/// `require`: encryption without knowing whom to.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: the chain must hold, the name may differ.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        match self.0.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            // The verifier looks at the name last: the chain was found good before this error.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Client configurations in the cache; when it is full it starts anew.
const CONFIGS_MAX: usize = 256;
