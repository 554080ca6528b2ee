//! bpf-linker, and whether its LLVM can read what the compiler writes.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    Place,
    compiler::{Compiler, output},
};

/// The release of bpf-linker that `setup` installs.
pub const LINKER_VERSION: &str = "0.13.0";

/// The LLVM it is built with: the pinned compiler's.
pub const LLVM_MAJOR: u32 = 22;

/// A bpf-linker that runs.
#[derive(Debug)]
pub struct Linker {
    /// Its absolute path.
    pub path: PathBuf,
}

impl Linker {
    /// The project's own, else the first in PATH or where cargo installs programs.
    pub fn find(place: &Place) -> Result<Self> {
        let own = [place.tools().join("bin"), place.root.join("target/tools/bin")];
        let path = env::var_os("PATH").unwrap_or_default();
        let home = env::var_os("CARGO_HOME").map(|home| PathBuf::from(home).join("bin"));
        let directories = own.into_iter().chain(env::split_paths(&path)).chain(home);
        let found = directories.map(|directory| directory.join("bpf-linker")).find(|path| path.is_file());
        let Some(path) = found else {
            bail!(
                "bpf-linker is missing; run `cargo xtask setup`, or:\n  apt-get install --no-install-recommends \
                 llvm-{LLVM_MAJOR}-dev libpolly-{LLVM_MAJOR}-dev zlib1g-dev libzstd-dev\n  \
                 LLVM_PREFIX=/usr/lib/llvm-{LLVM_MAJOR} cargo install bpf-linker --version {LINKER_VERSION} \
                 --no-default-features --features llvm-{LLVM_MAJOR}"
            )
        };
        if output(Command::new(&path).arg("--version")).is_none() {
            bail!(
                "{} does not run, probably for want of its LLVM; run `cargo xtask setup`, or install libllvm{LLVM_MAJOR}",
                path.display()
            );
        }
        Ok(Self { path })
    }

    /// An LLVM reads bitcode of its own and of older versions only. A statically linked one can't be asked.
    pub fn check(&self, compiler: &Compiler) -> Result<()> {
        match linked_llvm(&self.path) {
            Some(llvm) if llvm < compiler.llvm() => bail!(
                "{} has LLVM {llvm}, older than that of {}; run `cargo xtask setup`, or install it with the feature llvm-{}",
                self.path.display(),
                compiler.description(),
                compiler.llvm()
            ),
            _ => Ok(()),
        }
    }
}

fn linked_llvm(program: &Path) -> Option<u32> {
    llvm_library(&output(Command::new("ldd").arg(program))?)
}

/// Debian's names were `libLLVM-14.so.1` up to 18 and are `libLLVM.so.22.1` since.
fn llvm_library(libraries: &str) -> Option<u32> {
    let (_, after) = libraries.split_once("libLLVM")?;
    let digits: String =
        after.trim_start_matches(['-', '.', 's', 'o']).chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linkers_llvm_is_read_from_its_libraries() {
        assert_eq!(llvm_library("\tlibLLVM.so.22.1 => /usr/lib/libLLVM.so.22.1\n"), Some(22));
        assert_eq!(llvm_library("\tlibLLVM-14.so.1 => /usr/lib/libLLVM-14.so.1\n"), Some(14));
        assert_eq!(llvm_library("\tlibc.so.6 => /lib/libc.so.6\n"), None);
    }
}
