//! Which compiler makes BPF code.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::TARGET;

/// The rustup toolchain that is known to work. A later one brings a later LLVM than the linker's.
pub const NIGHTLY: &str = "nightly-2026-05-20";

/// Names a compiler to use instead of searching one.
pub const RUSTC_VARIABLE: &str = "FANLIGHT_BPF_RUSTC";

/// A compiler that can make BPF code, and how.
#[derive(Debug)]
pub struct Compiler {
    /// The compiler itself, not a shim in front of it.
    pub rustc: PathBuf,
    /// The cargo that drives it.
    pub cargo: PathBuf,
    /// `core` has to be built from the compiler's own sources.
    pub build_core: bool,
    /// It is no nightly: unstable features have to be unlocked.
    pub bootstrap: bool,
    version: Version,
}

#[derive(Debug)]
struct Version {
    release: String,
    llvm: u32,
}

impl Compiler {
    /// The one named by the environment; else the pinned nightly with its sources; else any that carries a
    /// prebuilt `core` for BPF.
    pub fn find() -> Result<Self> {
        if let Some(named) = env::var_os(RUSTC_VARIABLE) {
            return Self::named(Path::new(&named));
        }
        if let Some(found) =
            pinned_sysroot().and_then(|sysroot| Self::from_sources(&sysroot.join("bin/rustc")))
        {
            return Ok(found);
        }
        candidates().iter().find_map(|rustc| Self::prebuilt(rustc)).ok_or_else(|| {
            anyhow!(
                "no compiler for BPF: neither the rustup toolchain {NIGHTLY} with rust-src nor a rustc with a \
                 prebuilt core for {TARGET} is installed; run `cargo xtask setup`, or one of:\n  \
                 rustup toolchain install {NIGHTLY} --profile minimal --component rust-src\n  \
                 apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf"
            )
        })
    }

    fn named(rustc: &Path) -> Result<Self> {
        let print = |what| output(Command::new(rustc).args(["--print", what]));
        if print("sysroot").is_none() {
            bail!("{RUSTC_VARIABLE} names {}, which does not run as a compiler", rustc.display());
        }
        Self::prebuilt(rustc).or_else(|| Self::from_sources(rustc)).with_context(|| {
            format!(
                "{RUSTC_VARIABLE} names {}, which has neither a prebuilt core for {TARGET} nor rust-src",
                rustc.display()
            )
        })
    }

    fn from_sources(rustc: &Path) -> Option<Self> {
        let sysroot = PathBuf::from(output(Command::new(rustc).args(["--print", "sysroot"]))?);
        let sources = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        sources.exists().then(|| Self::new(rustc, true)).flatten()
    }

    fn prebuilt(rustc: &Path) -> Option<Self> {
        let directory = output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
        let core =
            |name: &OsStr| name.to_str().is_some_and(|n| n.starts_with("libcore-") && n.ends_with(".rlib"));
        let found = fs::read_dir(directory).ok()?.flatten().any(|entry| core(&entry.file_name()));
        found.then(|| Self::new(rustc, false)).flatten()
    }

    fn new(rustc: &Path, build_core: bool) -> Option<Self> {
        let version = Version::parse(&output(Command::new(rustc).arg("-vV"))?)?;
        let bootstrap = !version.release.contains("nightly");
        let cargo = rustc.with_file_name("cargo");
        let cargo = if cargo.exists() { cargo } else { PathBuf::from("cargo") };
        Some(Self { rustc: rustc.to_path_buf(), cargo, build_core, bootstrap, version })
    }

    /// The major version of its LLVM, which the linker's must not be older than.
    pub fn llvm(&self) -> u32 {
        self.version.llvm
    }

    /// For people: version, LLVM, path.
    pub fn description(&self) -> String {
        format!("rustc {} (LLVM {}, {})", self.version.release, self.version.llvm, self.rustc.display())
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let value = |key| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let llvm = value("LLVM version:")?.split('.').next()?.parse().ok()?;
        Some(Self { release: value("release:")?.to_owned(), llvm })
    }
}

fn pinned_sysroot() -> Option<PathBuf> {
    let mut rustup = Command::new("rustup");
    rustup
        .args(["run", NIGHTLY, "rustc", "--print", "sysroot"])
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN");
    output(&mut rustup).map(PathBuf::from)
}

/// Every compiler in PATH, and where distributions put theirs when another comes first there.
fn candidates() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/bin", "/usr/local/bin"].map(PathBuf::from));
    let mut found: Vec<_> =
        directories.map(|directory| directory.join("rustc")).filter(|rustc| rustc.exists()).collect();
    found.dedup();
    found
}

/// A command's standard output without its line end; `None` when it fails or does not exist.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_llvm_is_read_from_its_version() {
        let version =
            Version::parse("rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n").unwrap();
        assert_eq!((version.release.as_str(), version.llvm), ("1.97.0-nightly", 22));
        assert!(Version::parse("rustc 1.97.0\n").is_none());
    }
}
