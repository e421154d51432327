//! A certificate authority for the tests' servers.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use crate::{SERVER_V4, SERVER_V6};

/// An authority whose certificate is in a file; it signs servers' leaves.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
    pem: PathBuf,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("pem", &self.pem).finish_non_exhaustive()
    }
}

/// A server's certificate and key, as files.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// # Errors
    /// The key cannot be made, or the files not be written.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("make the authority's key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("weir tests: {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).context("sign the authority")?;
        fs::create_dir_all(directory)?;
        let pem = directory.join(format!("{name}-ca.pem"));
        fs::write(&pem, certificate.pem()).with_context(|| format!("write {}", pem.display()))?;
        Ok(Self { issuer: Issuer::new(params, key), directory: directory.to_owned(), pem })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn pem(&self) -> &Path {
        &self.pem
    }

    /// A leaf for the servers' addresses and `localhost`.
    ///
    /// # Errors
    /// It cannot be signed or written.
    pub fn server_leaf(&self, name: &str) -> Result<Leaf> {
        let addresses = [SERVER_V4.parse()?, SERVER_V6.parse()?];
        self.leaf(name, &["localhost"], &addresses)
    }

    /// A leaf for some names and addresses.
    ///
    /// # Errors
    /// It cannot be signed or written.
    pub fn leaf(&self, name: &str, names: &[&str], addresses: &[IpAddr]) -> Result<Leaf> {
        let key = KeyPair::generate().context("make a leaf's key")?;
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        let certificate = params.signed_by(&key, &self.issuer).context("sign a leaf")?;
        let leaf =
            Leaf { certificate: self.directory.join(format!("{name}.pem")), key: self.directory.join(format!("{name}.key")) };
        fs::write(&leaf.certificate, certificate.pem())?;
        fs::write(&leaf.key, key.serialize_pem())?;
        Ok(leaf)
    }
}
