//! Reloading: a new set replaces the old one only when everything in it is right; else the last good one stays in force.

use std::path::PathBuf;

use super::{
    PolicySet,
    load::{LoadErrors, Loaded, SqlReader, load},
};

/// Reads the files again, as the generation after `current`. `current` is untouched: on an error it stays in force.
///
/// # Errors
/// Everything that is wrong with the files, for status and metrics.
pub fn reload(current: &PolicySet, paths: &[PathBuf], reader: &SqlReader) -> Result<Loaded, LoadErrors> {
    load(paths, reader, current.generation.wrapping_add(1))
}
