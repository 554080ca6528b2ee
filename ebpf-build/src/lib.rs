//! Builds the kernel programs into one object file: compiler and linker found, flags set, debug sections stripped
//! (BTF stays), and refused when a panic is left in it.
//!
//! Used by `agent/build.rs`, which embeds the object, and by `cargo xtask build-ebpf`. The kernel programs are no
//! member of the workspace: they have another target, compiler and profile.

mod compiler;
mod linker;
mod object;
mod sizes;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

pub use crate::{
    compiler::{Compiler, NIGHTLY, RUSTC_VARIABLE},
    linker::{LINKER_VERSION, LLVM_MAJOR, Linker},
    sizes::{Size, check as check_sizes},
};

/// Set (to anything but `0`) it makes [`embed`] take the object that logs.
pub const LOG_VARIABLE: &str = "FANLIGHT_EBPF_LOG";

const TARGET: &str = "bpfel-unknown-none";
const BINARY: &str = "fanlight-ebpf";

/// Where things are: the checkout and its target directory.
#[derive(Debug, Clone)]
pub struct Place {
    /// The workspace's root.
    pub root: PathBuf,
    /// Cargo's target directory, wherever `CARGO_TARGET_DIR` or a configuration put it.
    pub target: PathBuf,
}

impl Place {
    /// Finds both for a process that cargo started: `made` is a path which cargo itself made inside the target
    /// directory (a build script's `OUT_DIR`, or the running executable), which is right however that was chosen.
    pub fn of(made: &Path) -> Result<Self> {
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set: run this by cargo")?;
        let root =
            Path::new(&manifest).parent().context("the package has no parent directory")?.to_path_buf();
        let marked = made.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists());
        let target = marked.map_or_else(|| root.join("target"), Path::to_path_buf);
        Ok(Self { root, target })
    }

    /// Where `setup` installs tools of the project's own, leaving the user's untouched.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    fn programs(&self) -> PathBuf {
        self.root.join("dataplane-ebpf")
    }

    /// Everything the object is made of.
    fn sources(&self) -> Vec<PathBuf> {
        let (programs, common) = (self.programs(), self.root.join("dataplane-common"));
        let mut sources = Vec::new();
        for package in [programs, common] {
            sources.extend(["src", "Cargo.toml"].map(|name| package.join(name)));
        }
        sources.push(self.programs().join("Cargo.lock"));
        sources.push(self.root.join("tests/later"));
        sources.push(self.root.join("Cargo.toml"));
        sources
    }
}

/// A finished object.
#[derive(Debug)]
pub struct Built {
    /// The stripped object.
    pub object: PathBuf,
    /// Which compiler made it, for people.
    pub compiler: String,
    /// Its size in bytes.
    pub size: usize,
    /// Its programs.
    pub programs: BTreeMap<String, Size>,
}

/// A feature of the kernel programs' package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// aya-log's lines are compiled in.
    Log,
    /// Flow records have a layout that only the test of an upgrade uses.
    TrialFlowLayout,
}

impl Feature {
    const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::TrialFlowLayout => "trial-flow-layout",
        }
    }
}

/// Builds the kernel programs. Fast when nothing changed.
pub fn build(place: &Place, features: &[Feature]) -> Result<Built> {
    let compiler = Compiler::find()?;
    let linker = Linker::find(place)?;
    linker.check(&compiler)?;
    // Their own directory each: otherwise every change between two would rebuild all dependencies.
    let names: Vec<&str> =
        ["ebpf"].into_iter().chain(features.iter().map(|feature| feature.name())).collect();
    let directory = place.target.join(names.join("-"));
    compile(place, &compiler, &linker, &directory, &names[1..])?;

    let linked = directory.join(TARGET).join("release").join(BINARY);
    let raw = fs::read(&linked).with_context(|| format!("{} was not made", linked.display()))?;
    let (stripped, programs) =
        object::finish(&raw).with_context(|| format!("{} is no good", linked.display()))?;
    let object = directory.join("fanlight.o");
    write_if_changed(&object, &stripped)?;
    Ok(Built { object, compiler: compiler.description(), size: stripped.len(), programs })
}

/// What the agent's build script does: builds, and copies the object to `OUT_DIR/fanlight.o`.
pub fn embed() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set: this is for build scripts")?);
    let place = Place::of(&out)?;
    for source in place.sources() {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    for variable in [RUSTC_VARIABLE, LOG_VARIABLE] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let mut features = Vec::new();
    if env::var_os(LOG_VARIABLE).is_some_and(|value| value != "0") {
        features.push(Feature::Log);
    }
    if env::var_os("CARGO_FEATURE_TRIAL_FLOW_LAYOUT").is_some() {
        features.push(Feature::TrialFlowLayout);
    }
    let built = build(&place, &features)?;
    let bytes = fs::read(&built.object).with_context(|| format!("reading {}", built.object.display()))?;
    write_if_changed(&out.join("fanlight.o"), &bytes)
}

fn compile(
    place: &Place,
    compiler: &Compiler,
    linker: &Linker,
    directory: &Path,
    features: &[&str],
) -> Result<()> {
    let mut cargo = Command::new(&compiler.cargo);
    cargo.current_dir(place.programs());
    forget_callers_build(&mut cargo);
    cargo.env("RUSTC", &compiler.rustc).env("CARGO_ENCODED_RUSTFLAGS", flags(linker));
    if compiler.bootstrap {
        // aya-ebpf uses an unstable feature (asm_experimental_arch).
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    cargo.args(["build", "--release", "--quiet", "--target", TARGET, "--bin", BINARY]);
    cargo.arg("--target-dir").arg(directory);
    if compiler.build_core {
        cargo.arg("-Zbuild-std=core");
    }
    cargo.args(["--features", &features.join(",")]);
    // Standard output belongs to the caller: a build script's is read by cargo.
    let status = cargo.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("running {}", compiler.cargo.display()))?;
    if !status.success() {
        bail!(
            "the kernel programs do not build (above) with {} and {}",
            compiler.description(),
            linker.path.display()
        );
    }
    Ok(())
}

/// v3 verifies up to 17 times fewer instructions than v2, and has atomics with a result. BTF is made from debug
/// information, hence full.
fn flags(linker: &Linker) -> String {
    let flags = [
        format!("-Clinker={}", linker.path.display()),
        "-Clink-arg=--btf".into(),
        "-Cdebuginfo=2".into(),
        "-Cpanic=abort".into(),
        "-Ctarget-cpu=v3".into(),
    ];
    flags.join("\x1f")
}

/// A build script inherits what cargo told it about the *caller's* compiler, flags and package; none of it may
/// reach the build of another package for another target.
fn forget_callers_build(cargo: &mut Command) {
    const NAMES: [&str; 9] = [
        "CARGO",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_BOOTSTRAP",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "TARGET",
    ];
    const PREFIXES: [&str; 9] = [
        "CARGO_BUILD_",
        "CARGO_CFG_",
        "CARGO_ENCODED_",
        "CARGO_FEATURE_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_PRIMARY_",
    ];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if NAMES.contains(&text.as_ref()) || PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
}

/// An untouched file keeps its time stamp, so that whatever depends on it is not rebuilt.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    // Another process may read the object at the same time.
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, bytes).with_context(|| format!("writing {}", temporary.display()))?;
    fs::rename(&temporary, path).with_context(|| format!("writing {}", path.display()))
}
