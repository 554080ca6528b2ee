//! Kernel modules, unpacked, unsigned and in the order to load them in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{archive::Archive, kernel::Kernel};

/// What the fan and its tests use; dependencies come along.
const WANTED: [&str; 37] = [
    "crc32c_generic",
    "veth",
    "dummy",
    "tun",
    "ifb",
    "bridge",
    "8021q",
    "macvlan",
    "ipip",
    "vxlan",
    "vrf",
    "sch_ingress",
    "sch_netem",
    "sch_tbf",
    "sch_fq",
    "cls_bpf",
    "cls_matchall",
    "cls_u32",
    "act_bpf",
    "act_mirred",
    "nf_conntrack",
    "nf_nat",
    "nf_tables",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_chain_nat",
    "nft_compat",
    "nft_reject_inet",
    "nft_limit",
    "ip_tables",
    "iptable_filter",
    "iptable_nat",
    "xt_conntrack",
    "xt_MASQUERADE",
    "ip_vs",
    "ip_vs_rr",
];

const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature` in front of the mark; its last field is the signature's length.
const SIGNATURE_HEADER: usize = 12;

/// Adds the modules and `/lib/modules/order`.
pub(super) fn add(archive: &mut Archive, kernel: &Kernel) -> Result<()> {
    let available = available(&kernel.modules)?;
    let mut set = Set { available, seen: BTreeSet::new(), order: Vec::new() };
    for name in WANTED {
        set.visit(name)?;
    }
    let mut order = String::new();
    for (name, data) in set.order {
        order.push_str(&format!("{name}\n"));
        archive.file(format!("/lib/modules/{name}.ko"), 0o644, data);
    }
    archive.file("/lib/modules/order", 0o644, order);
    Ok(())
}

struct Set {
    available: BTreeMap<String, PathBuf>,
    seen: BTreeSet<String>,
    order: Vec<(String, Vec<u8>)>,
}

impl Set {
    /// Depth first: dependencies, then the module. What is not there is built in, or not of that kernel.
    fn visit(&mut self, name: &str) -> Result<()> {
        let name = name.replace('-', "_");
        if !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let Some(path) = self.available.get(&name) else { return Ok(()) };
        let mut data = unpacked(path)?;
        data.truncate(unsigned_len(&data));
        for dependency in dependencies(&data) {
            self.visit(&dependency)?;
        }
        self.order.push((name, data));
        Ok(())
    }
}

fn available(directory: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![directory.to_path_buf()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else if let Some((stem, _)) = name.split_once(".ko") {
                found.insert(stem.replace('-', "_"), entry.path());
            }
        }
    }
    Ok(found)
}

fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("reading {}", path.display())),
    };
    let output = Command::new(program).args(["-q", "-d", "-c"]).arg(path).output();
    let output = output.with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!("{program} can't unpack {}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// Checking a signature takes long under emulation, and nothing asks for it.
fn unsigned_len(data: &[u8]) -> usize {
    let length = || {
        let before = data.strip_suffix(SIGNATURE_MARK)?;
        let (_, length) = before.split_last_chunk::<4>()?;
        before.len().checked_sub(SIGNATURE_HEADER + u32::from_be_bytes(*length) as usize)
    };
    length().unwrap_or(data.len())
}

/// The module's own record of what it needs, so that no depmod is.
fn dependencies(data: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = data.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = data[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = value.split(|byte| *byte == b',').filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_dependencies_are_its_own_record() {
        assert_eq!(dependencies(b"x\0license=GPL\0depends=stp,llc\0name=bridge\0"), ["stp", "llc"]);
        assert!(dependencies(b"x\0depends=\0name=stp\0").is_empty());
    }

    #[test]
    fn a_signature_is_cut_off_and_nothing_else_is() {
        let mut signed = b"module".to_vec();
        signed.extend([7; 5]);
        signed.extend([0; 8]);
        signed.extend(5_u32.to_be_bytes());
        signed.extend(SIGNATURE_MARK);
        assert_eq!(unsigned_len(&signed), 6);
        assert_eq!(unsigned_len(b"module"), 6);
    }
}
