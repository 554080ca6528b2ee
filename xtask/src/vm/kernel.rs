//! Debian's cloud kernels: small, with BTF, and with every module that the fan uses.

use std::{
    cmp::Reverse,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use ebpf_build::Place;

use crate::command::{capture, is_root, run};

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// What was asked for, like `6.12`.
    pub(crate) series: String,
    /// What it calls itself.
    pub(crate) release: String,
    pub(super) image: PathBuf,
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// The series' newest kernel; the one fetched before, if any.
    pub(crate) fn fetch(place: &Place, series: &str) -> Result<Self> {
        let cache = place.target.join("vm/kernels");
        fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
        let cached = newest(entries(&cache)?, series);
        let package = match &cached {
            Some(package) => package.clone(),
            None => available(series)?,
        };
        let unpacked = cache.join(&package);
        if cached.is_none() {
            download(&cache, &package)?;
        }
        let release = package.trim_start_matches("linux-image-").trim_end_matches("-unsigned").to_owned();
        let modules =
            ["lib/modules", "usr/lib/modules"].map(|directory| unpacked.join(directory).join(&release));
        let Some(modules) = modules.into_iter().find(|directory| directory.exists()) else {
            bail!("{} holds no modules; remove it to fetch it again", unpacked.display());
        };
        let image = unpacked.join(format!("boot/vmlinuz-{release}"));
        Ok(Self { series: series.to_owned(), release, image, modules })
    }
}

/// `6.1.0-56-cloud-amd64`, `6.12.117+deb12-cloud-amd64`.
fn newest(packages: Vec<String>, series: &str) -> Option<String> {
    let start = format!("linux-image-{series}.");
    let kernel = |name: &String| {
        name.starts_with(&start)
            && (name.ends_with("-cloud-amd64") || name.ends_with("-cloud-amd64-unsigned"))
    };
    // The unsigned package of a version does as well, but is rarely the only one.
    packages
        .into_iter()
        .filter(kernel)
        .max_by_key(|name| (numbers(name.trim_start_matches(&start)), Reverse(name.len())))
}

fn numbers(version: &str) -> Vec<u32> {
    let version = version.split("-cloud").next().unwrap_or_default();
    version
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn available(series: &str) -> Result<String> {
    let names = || -> Result<Vec<String>> {
        let names = capture(Command::new("apt-cache").arg("pkgnames").arg(format!("linux-image-{series}.")))?;
        Ok(names.lines().map(String::from).collect())
    };
    if let Some(name) = newest(names()?, series) {
        return Ok(name);
    }
    if is_root() {
        run(Command::new("apt-get").args(["-q", "update"]))?;
    }
    newest(names()?, series).with_context(|| {
        format!("apt knows no linux-image-{series}.*-cloud-amd64; this needs Debian 12's package lists (apt-get update)")
    })
}

fn download(cache: &Path, package: &str) -> Result<()> {
    // Finished under its name only when complete.
    let partial = cache.join(format!("{package}.{}.partial", std::process::id()));
    fs::create_dir_all(&partial).with_context(|| format!("making {}", partial.display()))?;
    // apt's own user may not write here; the sandbox is for what apt keeps itself.
    let options = ["-q", "-o", "APT::Sandbox::User=root", "download"];
    run(Command::new("apt-get").current_dir(&partial).args(options).arg(package))?;
    for file in entries(&partial)?.iter().filter(|name| name.ends_with(".deb")) {
        run(Command::new("dpkg-deb").arg("-x").arg(partial.join(file)).arg(&partial))?;
        fs::remove_file(partial.join(file)).with_context(|| format!("removing {file}"))?;
    }
    let unpacked = cache.join(package);
    fs::rename(&partial, &unpacked).with_context(|| format!("writing {}", unpacked.display()))
}

fn entries(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Result<Vec<_>> = names.collect();
    Ok(names?.into_iter().filter(|name| !name.ends_with(".partial")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_a_series_is_found_by_number() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64-dbg",
            "linux-image-6.12.95+deb12-cloud-amd64",
        ];
        let newest = |series| newest(names.map(String::from).to_vec(), series);
        assert_eq!(newest("6.1").unwrap(), "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(newest("6.12").unwrap(), "linux-image-6.12.117+deb12-cloud-amd64");
        assert_eq!(newest("6.6"), None);
    }
}
