//! `bench clock`: durations counted in instructions, which depend on the code alone and not on this machine's load;
//! compared with the figures that are kept.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use ebpf_build::Place;

use crate::{
    command::{build_executable, cargo},
    lab::{Profile, build_agent},
    setup::{self, Scope},
    vm::{self, Kernel, VmSpec},
};

const TABLE: &str = "tests/clock.toml";

const HEADER: &str = "\
# Instructions per operation on the guest's instruction clock, per kernel series. A figure over 5 % above these fails
# `cargo xtask ci`; `cargo xtask bench clock --bless` writes what is measured.
";

/// How much worse than kept a figure may be, in per cent.
const TOLERANCE: f64 = 5.0;

/// What is checked by `ci`.
const SERIES: &str = "6.12";

type Figures = BTreeMap<String, f64>;
type Table = BTreeMap<String, Figures>;

/// Count instructions per operation in a guest whose clock is its instructions.
#[derive(Parser)]
#[command(name = "cargo xtask bench clock", bin_name = "cargo xtask bench clock")]
struct Arguments {
    /// Kernel series
    #[arg(default_value = SERIES)]
    kernels: Vec<String>,
    /// Keep what is measured as the figures to compare with
    #[arg(long)]
    bless: bool,
}

/// `cargo xtask bench clock ...`
pub(crate) fn bench(place: &Place, arguments: &[String]) -> Result<()> {
    let arguments =
        Arguments::parse_from(std::iter::once("clock").chain(arguments.iter().map(String::as_str)));
    setup::ensure(place, Scope::Vm, true)?;
    for series in &arguments.kernels {
        let measured = measure(place, series)?;
        if arguments.bless {
            let mut table = kept(&place.root)?;
            table.insert(series.clone(), measured);
            let text = toml::to_string(&table).with_context(|| format!("writing {TABLE}"))?;
            fs::write(place.root.join(TABLE), format!("{HEADER}\n{text}"))
                .with_context(|| format!("writing {TABLE}"))?;
            println!("{TABLE}: figures of {series} written");
        } else {
            compare(series, kept(&place.root)?.get(series), &measured)?;
        }
    }
    Ok(())
}

/// Measures, and fails when a figure is worse than the one kept.
pub(crate) fn check(place: &Place) -> Result<()> {
    bench(place, &[])
}

fn measure(place: &Place, series: &str) -> Result<Figures> {
    let agent = build_agent(place, Profile::Release)?;
    let mut build = cargo(place, "build");
    build.args(["--release", "--package", "fanlight-tests", "--bin", "bench"]);
    let bench = build_executable(&mut build, "bench")?;

    let kernel = Kernel::fetch(place, series)?;
    println!("--- Linux {}, instruction clock", kernel.release);
    let mut spec = VmSpec::new(&kernel, &["/payload/bench", "clock", "--json", "/out/clock.json"]);
    spec.payload = vec![(agent, "fanlight".into()), (bench, "bench".into())];
    let environment = [("FANLIGHT_BIN", "/payload/fanlight"), ("FANLIGHT_GUEST", series)];
    spec.environment = environment.map(|(name, value)| (name.into(), value.into())).to_vec();
    spec.instruction_clock = true;
    spec.limit = Duration::from_secs(1800);
    let output = vm::run(place, &spec)?;
    if output.status != 0 {
        bail!("the benchmark failed in the guest with exit status {}", output.status);
    }
    println!("--- Linux {}: {:.0} s", kernel.release, output.took.as_secs_f32());
    let path = output.files.join("clock.json");
    let json = fs::read(&path).with_context(|| format!("the guest left no {}", path.display()))?;
    serde_json::from_slice(&json).with_context(|| format!("reading {}", path.display()))
}

fn kept(root: &Path) -> Result<Table> {
    let path = root.join(TABLE);
    if !path.exists() {
        return Ok(Table::new());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("reading {TABLE}"))?;
    toml::from_str(&text).with_context(|| format!("reading {TABLE}"))
}

fn compare(series: &str, kept: Option<&Figures>, measured: &Figures) -> Result<()> {
    let Some(kept) = kept else {
        println!("{TABLE} keeps no figures of {series}: nothing to compare with");
        return Ok(());
    };
    let mut worse = Vec::new();
    for (name, old) in kept {
        let Some(new) = measured.get(name) else {
            worse.push(format!("{name} was not measured"));
            continue;
        };
        let change = 100.0 * (new - old) / old;
        println!("{name:40} {new:12.0}  {change:+.1} %");
        if change > TOLERANCE {
            worse.push(format!("{name}: {new:.0} instead of {old:.0} instructions"));
        }
    }
    if !worse.is_empty() {
        bail!(
            "worse on the clock of {series}: {}; if that is wanted, `cargo xtask bench clock --bless`",
            worse.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(value: f64) -> Figures {
        Figures::from([("fan.round_trip".into(), value)])
    }

    #[test]
    fn five_per_cent_more_instructions_are_a_failure() {
        let kept = figures(100_000.0);
        assert!(compare("6.12", Some(&kept), &figures(104_900.0)).is_ok());
        assert!(compare("6.12", Some(&kept), &figures(80_000.0)).is_ok());
        let error = compare("6.12", Some(&kept), &figures(105_100.0)).unwrap_err().to_string();
        assert!(error.contains("fan.round_trip: 105100 instead of 100000"), "{error}");
        assert!(compare("6.12", Some(&kept), &Figures::new()).is_err());
        assert!(compare("6.1", None, &kept).is_ok());
    }
}
