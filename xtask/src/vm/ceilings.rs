//! How many instructions the verifier walks per kernel and program: the table that the `verifier` test compares
//! with, which fails 10 % above.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};

const TABLE: &str = "tests/verified-instructions.toml";

const HEADER: &str = "\
# Instructions that the verifier walked, per kernel series and program. A program that needs over 10 % more fails
# the test `verifier`; `cargo xtask vm 6.1 6.12 --bless` writes what is measured.
";

type Table = BTreeMap<String, BTreeMap<String, u32>>;

/// Replaces a kernel's part of the table by what was measured, a JSON object of programs.
pub(crate) fn bless(root: &Path, series: &str, measured: &[u8]) -> Result<()> {
    let path = root.join(TABLE);
    let old = if path.exists() {
        fs::read_to_string(&path).with_context(|| format!("reading {TABLE}"))?
    } else {
        String::new()
    };
    let new = replaced(&old, series, measured)?;
    fs::write(&path, new).with_context(|| format!("writing {TABLE}"))?;
    println!("{TABLE}: numbers of {series} written");
    Ok(())
}

fn replaced(old: &str, series: &str, measured: &[u8]) -> Result<String> {
    let mut table: Table = toml::from_str(old).with_context(|| format!("reading {TABLE}"))?;
    let counts = serde_json::from_slice(measured).context("reading the measured numbers")?;
    table.insert(series.to_owned(), counts);
    let text = toml::to_string(&table).with_context(|| format!("writing {TABLE}"))?;
    Ok(format!("{HEADER}\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kernels_numbers_are_replaced_and_the_others_stay() {
        let old = "[\"6.1\"]\na = 1\n\n[\"6.12\"]\na = 2\n";
        let new = replaced(old, "6.12", br#"{"a": 3, "b": 4}"#).unwrap();
        assert!(new.ends_with("[\"6.1\"]\na = 1\n\n[\"6.12\"]\na = 3\nb = 4\n"), "{new}");
    }
}
