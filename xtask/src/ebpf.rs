//! Builds the kernel programs, checks the committed object, and says how large the programs are.
//!
//! The object is committed, stripped, with a manifest, so that building the agent needs neither LLVM nor an unstable compiler. Building
//! it needs a compiler with the source of `core` and permission for `-Z build-std`: Debian's, or a rustup nightly; and
//! bpf-linker, with an LLVM not older than the compiler's. The same sources and tools give the same bytes in any directory.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const OBJECT: &str = "ebpf/weir.bpf.o";
const MANIFEST: &str = "ebpf/manifest.json";
/// Where cargo puts what the linker made, below its target directory.
const LINKED: &str = "bpfel-unknown-none/release/weir";
/// What the object is made of. `abi/src/sys.rs` is not in it: only user space compiles that.
const SOURCES: [&str; 6] =
    ["ebpf/Cargo.lock", "ebpf/Cargo.toml", "ebpf/abi/Cargo.toml", "ebpf/abi/src/lib.rs", "ebpf/abi/src/select.rs", "ebpf/src"];
const LINKER_HINT: &str = "install it with `cargo xtask setup`, or: LLVM_PREFIX=/usr/lib/llvm-22 LLVM_SYS_221_PREFIX=/usr/lib/llvm-22 \
    cargo install bpf-linker@0.13.0 --no-default-features --features llvm-22";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Build the object and write it and its manifest
    Build,
    /// Build it again elsewhere and compare it with the committed one
    Check,
    /// Load every program and print its size and what the verifier had to look at
    Size,
}

/// Does what was asked for.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Build => build(),
        Action::Check => check(),
        Action::Size => size(),
    }
}

/// What an object was made of and with.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Manifest {
    /// SHA-256 over names and contents of the sources.
    source: String,
    #[serde(flatten)]
    tools: Tools,
    /// SHA-256 of the object.
    object: String,
    object_bytes: usize,
}

/// Versions that decide about the bytes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Tools {
    rustc: String,
    llvm: String,
    bpf_linker: String,
    strip: String,
}

/// Builds the object and writes it with its manifest.
pub(crate) fn build() -> Result<()> {
    let root = root()?;
    let toolchain = Toolchain::find()?;
    let object = toolchain.object(&root, &root.join("ebpf/target"))?;
    let manifest =
        Manifest { source: source_hash(&root)?, tools: toolchain.tools, object: sha256(&object), object_bytes: object.len() };
    fs::write(root.join(OBJECT), &object).with_context(|| format!("write {OBJECT}"))?;
    fs::write(root.join(MANIFEST), serde_json::to_string_pretty(&manifest)? + "\n")
        .with_context(|| format!("write {MANIFEST}"))?;
    println!("{OBJECT}: {} bytes, {}", manifest.object_bytes, manifest.object);
    Ok(())
}

/// Fails if the committed object is not that of the manifest, or was not made of these sources, or, with the manifest's
/// tools, is not what they make.
pub(crate) fn check() -> Result<()> {
    let root = root()?;
    let text = fs::read_to_string(root.join(MANIFEST)).with_context(|| format!("read {MANIFEST}"))?;
    let manifest: Manifest = serde_json::from_str(&text).with_context(|| format!("read {MANIFEST}"))?;
    let committed = fs::read(root.join(OBJECT)).with_context(|| format!("read {OBJECT}"))?;
    ensure!(sha256(&committed) == manifest.object, "{OBJECT} is not the object of {MANIFEST}: run `cargo xtask ebpf build`");
    ensure!(source_hash(&root)? == manifest.source, "{OBJECT} was not made of these sources: run `cargo xtask ebpf build`");
    let toolchain = Toolchain::find()?;
    let object = toolchain.object(&root, &root.join("target/ebpf-check"))?;
    if toolchain.tools != manifest.tools {
        println!(
            "{OBJECT}: sources match; bytes not compared, because it was built with {:?} and these are {:?}",
            manifest.tools, toolchain.tools
        );
        return Ok(());
    }
    ensure!(
        object == committed,
        "{OBJECT} is not what its own tools make of its own sources: {} instead of {}",
        sha256(&object),
        manifest.object
    );
    println!("{OBJECT}: rebuilt, the same {} bytes", committed.len());
    Ok(())
}

/// Loads every program of the committed object through the verifier (needs root) and prints instruction counts.
pub(crate) fn size() -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The agent loads its own object: what is measured is what is shipped.
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--package", "weir", "--", "doctor", "--json"])
        .current_dir(root()?)
        .output()
        .context("run weir doctor")?;
    let report: Report = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("read what weir doctor says: {}", String::from_utf8_lossy(&output.stderr)))?;
    ensure!(!report.programs.is_empty(), "the programs do not load: {}", report.programs_error.unwrap_or_default());
    println!("{:<14} {:>12} {:>20}", "PROGRAM", "INSTRUCTIONS", "VERIFIER LOOKED AT");
    for program in &report.programs {
        println!("{:<14} {:>12} {:>20}", program.name, program.instructions, program.verified_instructions);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Report {
    programs: Vec<ProgramSize>,
    programs_error: Option<String>,
}

#[derive(Deserialize)]
struct ProgramSize {
    name: String,
    instructions: u32,
    verified_instructions: u32,
}

/// A compiler that can build `core` for BPF, with its linker and strip.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    linker: PathBuf,
    strip: PathBuf,
    core: PathBuf,
    tools: Tools,
}

impl Toolchain {
    /// The one that the environment names (`WEIR_EBPF_RUSTC`, `WEIR_EBPF_CARGO`), else Debian's, else a rustup nightly.
    fn find() -> Result<Self> {
        let mut missing = Vec::new();
        for (name, found) in
            [("WEIR_EBPF_RUSTC", from_environment()), ("/usr/bin/rustc", debian()), ("rustup nightly", rustup_nightly())]
        {
            match found.and_then(|(rustc, cargo)| Self::with(rustc, cargo)) {
                Ok(toolchain) => return Ok(toolchain),
                Err(error) => missing.push(format!("  {name}: {error:#}")),
            }
        }
        bail!(
            "no compiler for the kernel programs:\n{}\non Debian: apt-get install rustc-web cargo-web rust-web-src llvm-22-dev (or `cargo xtask setup`); \
             elsewhere: rustup toolchain install nightly --component rust-src",
            missing.join("\n")
        )
    }

    fn with(rustc: PathBuf, cargo: PathBuf) -> Result<Self> {
        let verbose = output(Command::new(&rustc).arg("-vV").env("PATH", "/usr/bin:/bin"))?;
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
        let version = verbose.lines().next().unwrap_or_default().to_owned();
        let llvm = field("LLVM version:").context("the compiler does not say its LLVM version")?;
        let sysroot = PathBuf::from(output(Command::new(&rustc).args(["--print", "sysroot"]))?);
        let core = sysroot.join("lib/rustlib/src/rust");
        ensure!(
            core.join("library/core/Cargo.toml").exists(),
            "{version} has no source of core (package rust-web-src, component rust-src)"
        );
        let linker = find_linker()?;
        let strip = find_strip(&llvm)?;
        let tools = Tools {
            rustc: version,
            bpf_linker: output(Command::new(&linker).arg("--version"))?,
            strip: output(Command::new(&strip).arg("--version"))?
                .lines()
                .find(|line| line.contains("version"))
                .unwrap_or_default()
                .trim()
                .to_owned(),
            llvm,
        };
        Ok(Self { cargo, rustc, linker, strip, core, tools })
    }

    /// Builds, strips, returns the bytes.
    fn object(&self, root: &Path, target: &Path) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.cargo);
        command.args(["build", "--release", "--locked", "-Z", "build-std=core", "--target", "bpfel-unknown-none"]);
        command.current_dir(root.join("ebpf"));
        // What the outer cargo or rustup says is meant for the other toolchain.
        for name in [
            "RUSTUP_TOOLCHAIN",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_MANIFEST_DIR",
        ] {
            command.env_remove(name);
        }
        // No shims on the path: dependencies that look for a compiler there must find this one or none.
        command.env("PATH", path_without_shims(&self.rustc, &self.cargo)?);
        command.env("RUSTC", &self.rustc).env("CARGO_TARGET_DIR", target);
        // For this child only: it would let every dependency of the agent switch on what is unstable.
        command.env("RUSTC_BOOTSTRAP", "1");
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags(root)?);
        let status = command.status().with_context(|| format!("run {}", self.cargo.display()))?;
        ensure!(
            status.success(),
            "building the kernel programs failed; if the linker says \"unable to load\" bitcode, its LLVM is older than {}: {LINKER_HINT}",
            self.tools.llvm
        );

        let stripped = target.join("weir.bpf.o");
        // Debug information goes; .BTF and .BTF.ext stay, and the socket storage needs them.
        output(Command::new(&self.strip).args(["-g", "-o"]).arg(&stripped).arg(target.join(LINKED)))?;
        fs::read(&stripped).with_context(|| format!("read {}", stripped.display()))
    }

    /// Flags separated as `CARGO_ENCODED_RUSTFLAGS` wants it. Paths are rewritten so that the directory does not matter.
    fn flags(&self, root: &Path) -> Result<OsString> {
        let mut flags: Vec<OsString> = ["-C", "debuginfo=2", "-C", "link-arg=--btf", "-C"].map(OsString::from).to_vec();
        flags.push(join("linker=", &self.linker, ""));
        let mut remap = |from: &Path, to: &str| flags.push(join("--remap-path-prefix=", from, &format!("={to}")));
        remap(root, "weir");
        remap(&self.core, "rust");
        for registry in registries()? {
            remap(&registry, "registry");
        }
        Ok(flags.join(OsStr::new("\u{1f}")))
    }
}

fn join(before: &str, path: &Path, after: &str) -> OsString {
    let mut word = OsString::from(before);
    word.push(path);
    word.push(after);
    word
}

fn from_environment() -> Result<(PathBuf, PathBuf)> {
    let rustc = env::var_os("WEIR_EBPF_RUSTC").context("not set")?;
    let cargo = env::var_os("WEIR_EBPF_CARGO").context("WEIR_EBPF_CARGO is not set")?;
    Ok((rustc.into(), cargo.into()))
}

fn debian() -> Result<(PathBuf, PathBuf)> {
    let (rustc, cargo) = (PathBuf::from("/usr/bin/rustc"), PathBuf::from("/usr/bin/cargo"));
    ensure!(rustc.exists() && cargo.exists(), "not installed");
    Ok((rustc, cargo))
}

fn rustup_nightly() -> Result<(PathBuf, PathBuf)> {
    let which = |tool| output(Command::new("rustup").args(["which", "--toolchain", "nightly", tool])).map(PathBuf::from);
    Ok((which("rustc")?, which("cargo")?))
}

fn find_linker() -> Result<PathBuf> {
    let named = env::var_os("WEIR_EBPF_LINKER").map(PathBuf::from);
    let found = named
        .into_iter()
        .chain(on_path("bpf-linker"))
        .chain(cargo_home().ok().map(|home| home.join("bin/bpf-linker")))
        .find(|path| path.exists());
    found.with_context(|| format!("bpf-linker is not installed: {LINKER_HINT}"))
}

/// The strip of the compiler's own LLVM, if it is there.
fn find_strip(llvm: &str) -> Result<PathBuf> {
    let major = llvm.split('.').next().unwrap_or_default();
    let own = PathBuf::from(format!("/usr/lib/llvm-{major}/bin/llvm-strip"));
    let named = env::var_os("WEIR_EBPF_STRIP").map(PathBuf::from);
    let candidates = named.into_iter().chain([own]).chain(on_path(&format!("llvm-strip-{major}"))).chain(on_path("llvm-strip"));
    candidates
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("llvm-strip is not installed (package llvm-{major})"))
}

fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(name)).find(|path| path.exists())
}

fn path_without_shims(rustc: &Path, cargo: &Path) -> Result<OsString> {
    let own = [rustc, cargo].into_iter().filter_map(Path::parent).map(Path::to_owned);
    Ok(env::join_paths(own.chain(["/usr/bin".into(), "/bin".into()]))?)
}

fn cargo_home() -> Result<PathBuf> {
    let named = env::var_os("CARGO_HOME").map(PathBuf::from);
    named
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}

/// Directories in which cargo unpacks crates; their names depend on the registry's address.
fn registries() -> Result<Vec<PathBuf>> {
    let directory = cargo_home()?.join("registry/src");
    match fs::read_dir(&directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", directory.display())),
    }
}

fn source_hash(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    SOURCES.iter().try_for_each(|name| collect(&root.join(name), &mut files))?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let name = file.strip_prefix(root)?.to_str().context("a source file has a strange name")?;
        // Lengths first, so that no two trees give one stream.
        for part in [name.as_bytes(), &content] {
            hash.update(u64::try_from(part.len())?.to_le_bytes());
            hash.update(part);
        }
    }
    Ok(hexadecimal(&hash.finalize()))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("read {}", path.display()))? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a command and returns what it printed, without the last newline.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {:?}", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{:?}: {}: {}",
        command.get_program(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent directory")?;
    root.canonicalize().context("find the workspace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_hash_sees_names_and_contents() {
        let tree = |files: &[(&str, &str)]| {
            let directory = env::temp_dir().join(format!("weir-xtask-{}-{}", std::process::id(), files.len()));
            let _ = fs::remove_dir_all(&directory);
            for name in SOURCES {
                fs::create_dir_all(directory.join(name)).unwrap();
            }
            files.iter().for_each(|(name, content)| fs::write(directory.join("ebpf/src").join(name), content).unwrap());
            let hash = source_hash(&directory).unwrap();
            fs::remove_dir_all(&directory).unwrap();
            hash
        };
        assert_eq!(tree(&[("a", "b")]), tree(&[("a", "b")]));
        assert_ne!(tree(&[("a", "b")]), tree(&[("a", "c")]));
        assert_ne!(tree(&[("a", "b")]), tree(&[("c", "b")]));
        assert_ne!(tree(&[("ab", "c")]), tree(&[("a", "bc")]));
    }

    #[test]
    fn the_committed_object_is_that_of_the_manifest() {
        let root = root().unwrap();
        let manifest: Manifest = serde_json::from_str(&fs::read_to_string(root.join(MANIFEST)).unwrap()).unwrap();
        assert_eq!(manifest.object, sha256(&fs::read(root.join(OBJECT)).unwrap()));
        assert_eq!(manifest.source, source_hash(&root).unwrap());
    }
}
