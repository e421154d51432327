//! Looks for secrets in everything that a process can see: environment, command line, open files, whole memory.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::FileExt,
    path::Path,
};

use anyhow::{Context, Result};
use memchr::memmem;

/// What was searched, and where a needle was found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) bytes: u64,
    pub(super) open_files: usize,
    pub(super) found: Vec<String>,
}

/// Searches one running process for some needles.
pub(super) fn scan(pid: u32, needles: &[Vec<u8>]) -> Result<Scan> {
    let mut scan = Scan::default();
    let process = Path::new("/proc").join(pid.to_string());
    for name in ["environ", "cmdline"] {
        let content = fs::read(process.join(name)).with_context(|| format!("read {name} of {pid}"))?;
        scan.search(name, &content, needles);
    }
    scan_open_files(&process, needles, &mut scan)?;
    scan_memory(&process, needles, &mut scan)?;
    Ok(scan)
}

impl Scan {
    fn search(&mut self, place: &str, content: &[u8], needles: &[Vec<u8>]) {
        self.bytes += content.len() as u64;
        let found = needles.iter().any(|needle| memmem::find(content, needle).is_some());
        if found && !self.found.iter().any(|known| known == place) {
            self.found.push(place.to_owned());
        }
    }
}

fn scan_open_files(process: &Path, needles: &[Vec<u8>], scan: &mut Scan) -> Result<()> {
    for entry in fs::read_dir(process.join("fd")).context("list open files")?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        scan.open_files += 1;
        if !target.is_file() {
            continue;
        }
        let mut content = Vec::new();
        File::open(&target)?.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
        scan.search(&target.display().to_string(), &content, needles);
    }
    Ok(())
}

fn scan_memory(process: &Path, needles: &[Vec<u8>], scan: &mut Scan) -> Result<()> {
    let maps = fs::read_to_string(process.join("maps")).context("read the memory map")?;
    let memory = File::open(process.join("mem")).context("open the memory")?;
    let overlap = needles.iter().map(Vec::len).max().unwrap_or(1) as u64;
    let mut window = vec![0; WINDOW_BYTES];
    for (place, start, end) in maps.lines().filter_map(readable_region) {
        let mut at = start;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(WINDOW_BYTES).min(WINDOW_BYTES);
            let Some(part) = window.get_mut(..wanted) else { break };
            // Some regions (vvar) are listed as readable and are not.
            let Ok(length) = memory.read_at(part, at) else { break };
            if length == 0 {
                break;
            }
            scan.search(place, part.get(..length).unwrap_or_default(), needles);
            let passed = length as u64;
            at += if at + passed < end { passed.saturating_sub(overlap).max(1) } else { passed };
        }
    }
    Ok(())
}

/// Name, start and end of a region that the process may read.
fn readable_region(line: &str) -> Option<(&str, u64, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let readable = fields.next()?.starts_with('r');
    let name = fields.nth(3).unwrap_or("anonymous memory");
    let number = |text| u64::from_str_radix(text, 16).ok();
    readable.then_some(())?;
    Some((name, number(start)?, number(end)?))
}

const WINDOW_BYTES: usize = 1024 * 1024;
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_needle_in_the_memory_of_a_process() {
        let needle = format!("needle-{}", std::process::id());
        let scan = scan(std::process::id(), &[needle.clone().into_bytes()]).unwrap();
        assert!(!scan.found.is_empty() && scan.bytes > 0, "{scan:?}");
    }

    #[test]
    fn reads_lines_of_the_memory_map() {
        assert_eq!(
            readable_region("00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/a"),
            Some(("/usr/bin/a", 0x40_0000, 0x45_2000))
        );
        assert_eq!(readable_region("7f00-7f10 rw-p 00000000 00:00 0"), Some(("anonymous memory", 0x7f00, 0x7f10)));
        assert_eq!(readable_region("00400000-00452000 ---p 00000000 08:02 173521"), None);
    }
}
