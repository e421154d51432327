//! A directory that is gone afterwards, and names that nobody else has.

use std::{
    fmt::Write as _,
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// A temporary directory that other users may enter: PostgreSQL refuses to run as root.
#[derive(Debug)]
pub struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    /// # Errors
    /// The directory cannot be made.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("weir-e2e-").tempdir().context("make a scratch directory")?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self { directory })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a subdirectory.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file that only root reads.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn secret(&self, name: &str, value: &str) -> Result<PathBuf> {
        let path = self.directory("secrets")?.join(name);
        fs::write(&path, value).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }
}

/// Random lower-case hexadecimal text of twice as many digits as bytes.
///
/// # Errors
/// The system's randomness cannot be read.
pub fn random_hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).context("read randomness")?;
    random.iter().try_fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}")?;
        Ok(text)
    })
}
