//! Getting what is missing: rustup, apt and cargo, by their own clients.

use std::{collections::BTreeSet, env, fs, process::Command};

use anyhow::{Context, Result, bail};
use ebpf_build::{LINKER_VERSION, LLVM_MAJOR, NIGHTLY, Place, RUSTC_VARIABLE};

use super::need::Need;
use crate::command::{cargo_program, find_program, is_root, run};

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
    let list = packages.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
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
    run(apt(&["install", "--no-install-recommends"]).args(packages))
        .with_context(|| format!("this release may not have all of: {list}"))
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
