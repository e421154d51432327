//! The key behind the versions of credentials. It is made once per host, in the state directory, and stays: an auditor can tell
//! whether two sessions had the same secret also when the agent was started again between them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// What versions are keyed with. Without it, a version cannot be guessed from a list of passwords.
pub struct VersionKey(Zeroizing<[u8; KEY_BYTES]>);

#[derive(Debug, thiserror::Error)]
#[error("key of credential versions: {operation} {path}: {cause}")]
pub struct VersionKeyError {
    operation: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl VersionKey {
    /// Opens the key in `directory` (`version.key`, 0600), or makes it when there is none.
    ///
    /// # Errors
    /// The directory cannot be written, or what is in it is not a key.
    pub fn open(directory: &Path) -> Result<Self, VersionKeyError> {
        let path = directory.join(FILE);
        let failed = |operation, cause| VersionKeyError { operation, path: path.clone(), cause };
        match read(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            found => return found.map(Self).map_err(|cause| failed("read", cause)),
        }
        fs::create_dir_all(directory).map_err(|cause| failed("make the directory of", cause))?;
        make(directory, &path).map_err(|cause| failed("make", cause))?;
        // Another agent of this host may have been faster: the key that is there is the one.
        read(&path).map(Self).map_err(|cause| failed("read", cause))
    }

    pub(super) fn expose(&self) -> &[u8] {
        &*self.0
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    File::open(path)?.read_exact(&mut *key)?;
    Ok(key)
}

/// Whole or not at all: a crash half-way leaves no short key behind, and a key that is there is never replaced.
fn make(directory: &Path, path: &Path) -> io::Result<()> {
    let key: Zeroizing<[u8; KEY_BYTES]> = Zeroizing::new(rand::random());
    let unfinished = directory.join(format!("{FILE}.{}.{:08x}", std::process::id(), rand::random::<u32>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let linked = file
        .write_all(&*key)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&unfinished, path))
        .or_else(|cause| if cause.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(cause) });
    let _ = fs::remove_file(&unfinished);
    linked
}

const FILE: &str = "version.key";
const KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_private() {
        let directory = TempDir::new().unwrap();
        let state = directory.path().join("state");
        let first = VersionKey::open(&state).unwrap();
        assert_eq!(VersionKey::open(&state).unwrap().expose(), first.expose());
        assert_eq!(fs::metadata(state.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing unfinished is left");
        let other = VersionKey::open(&directory.path().join("other")).unwrap();
        assert_ne!(other.expose(), first.expose());
    }

    #[test]
    fn a_key_that_was_cut_short_is_not_replaced_silently() {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join(FILE), "short").unwrap();
        assert!(VersionKey::open(directory.path()).is_err());
    }
}
