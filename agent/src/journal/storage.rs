//! The few file operations that the writer needs, so that a test can make each of them fail.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::SyncPolicy;

/// Where segments are written.
pub(super) trait Storage: Send {
    /// Makes a file that must not exist.
    fn create(&mut self, path: &Path) -> io::Result<File>;
    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    /// Returns when what was written will survive a power cut.
    fn sync(&mut self, file: &File) -> io::Result<()>;
    /// The same for names in a directory.
    fn sync_directory(&mut self, directory: &Path) -> io::Result<()>;
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

/// The real file system.
pub(super) struct Disk(pub(super) SyncPolicy);

impl Storage for Disk {
    fn create(&mut self, path: &Path) -> io::Result<File> {
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        OpenOptions::new().append(true).create_new(true).mode(0o600).custom_flags(no_follow).open(path)
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        match self.0 {
            SyncPolicy::Fdatasync => file.sync_data(),
            SyncPolicy::Never => Ok(()),
        }
    }

    fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
        match self.0 {
            SyncPolicy::Fdatasync => File::open(directory)?.sync_all(),
            SyncPolicy::Never => Ok(()),
        }
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}
