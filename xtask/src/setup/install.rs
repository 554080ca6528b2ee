//! Getting what is missing: rustup, apt and cargo, by their own clients.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    process::Command,
};

use anyhow::{Context, Result, bail};
use ebpf_build::{LINKER_VERSION, LLVM_MAJOR, NIGHTLY, Place, RUSTC_VARIABLE};

use super::need::Need;
use crate::command::{capture, cargo_program, find_program, is_root, run};

/// Installs everything in `missing`.
pub(super) fn install(place: &Place, missing: &[Need]) -> Result<()> {
    if missing.contains(&Need::Compiler) && env::var_os(RUSTC_VARIABLE).is_some() {
        bail!("{RUSTC_VARIABLE} names no compiler for BPF; unset it to have one installed");
    }
    let rustup = find_program("rustup").is_some();
    let packages = packages(missing, rustup);
    if !packages.is_empty() {
        apt_install(&packages)?;
    }
    if missing.contains(&Need::Compiler) && rustup {
        let mut toolchain = Command::new("rustup");
        toolchain.args(["toolchain", "install", NIGHTLY, "--profile", "minimal", "--component", "rust-src"]);
        // Updating rustup itself is no business of ours.
        toolchain.arg("--no-self-update");
        run(&mut toolchain)?;
    }
    for need in missing {
        if let Need::Component(name) = need {
            run(Command::new("rustup").args(["component", "add", name]))
                .with_context(|| format!("without rustup, {name} comes from where your Rust does"))?;
        }
    }
    if missing.contains(&Need::Linker) {
        install_linker(place)?;
    }
    Ok(())
}

fn packages(missing: &[Need], rustup: bool) -> BTreeSet<String> {
    let mut packages = BTreeSet::new();
    for need in missing {
        match need {
            Need::Compiler if rustup => {}
            Need::Component(_) => {}
            Need::Compiler => {
                packages.extend(["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"].map(String::from))
            }
            Need::Linker => {
                // g++ brings the C++ library's development files, which LLVM's own package does not ask for.
                let llvm = [format!("llvm-{LLVM_MAJOR}-dev"), format!("libpolly-{LLVM_MAJOR}-dev")];
                packages
                    .extend(llvm.into_iter().chain(["zlib1g-dev", "libzstd-dev", "g++"].map(String::from)));
            }
            Need::Program { package, .. } => {
                packages.insert((*package).to_owned());
            }
        }
    }
    packages
}

fn apt_install(packages: &BTreeSet<String>) -> Result<()> {
    let list = packages.iter().map(|names| names.replace('|', " or ")).collect::<Vec<_>>().join(" ");
    if find_program("apt-get").is_none() {
        bail!("there is no apt-get here; install what these Debian packages hold: {list}");
    }
    if !is_root() {
        bail!("installing packages needs root; run this as root, or: sudo apt-get install {list}");
    }
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y"]).args(arguments);
        apt
    };
    run(&mut apt(&["update"]))?;
    let _quiet = QuietServices::begin()?;
    run(apt(&["install", "--no-install-recommends"]).args(packages.iter().map(|names| offered(names))))
        .with_context(|| format!("this release may not have all of: {list}"))
}

/// The first of the packages, separated by `|`, that apt knows; the last one when it knows none.
fn offered(names: &str) -> &str {
    let (first, rest) = names.split_once('|').unwrap_or((names, ""));
    let known = || capture(Command::new("apt-cache").args(["show", "--quiet", first])).is_ok();
    if rest.is_empty() || known() { first } else { offered(rest) }
}

/// Says to Debian's packages that no service may start: tests start their own, and Docker's changes the machine's
/// packet filter.
struct QuietServices {
    ours: bool,
}

impl QuietServices {
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    fn begin() -> Result<Self> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o755);
        match options.open(Self::POLICY).and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n")) {
            Ok(()) => Ok(Self { ours: true }),
            // The machine's owner has a policy.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(error).with_context(|| format!("writing {}", Self::POLICY)),
        }
    }
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(Self::POLICY);
        }
    }
}

/// Into the project's own directory: a bpf-linker of the user's stays as it is.
fn install_linker(place: &Place) -> Result<()> {
    let tools = place.tools();
    let scratch = tools.join("build");
    let mut install = Command::new(cargo_program());
    install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM_MAJOR}")).env_remove("RUSTFLAGS");
    install.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"]);
    install.args(["--no-default-features", "--features", &format!("llvm-{LLVM_MAJOR}")]);
    install.arg("--root").arg(&tools).arg("--target-dir").arg(&scratch);
    run(&mut install)?;
    fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))
}
