//! `bench clock`: durations counted in instructions, which depend on the code alone and not on this machine's load;
//! compared with the figures that are kept.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use ebpf_build::Place;

use crate::{
    lab::{AGENT, BENCH, Built},
    setup::{self, Scope},
    vm::{self, Kernel, VmSpec},
};

const TABLE: &str = "tests/clock.toml";

const HEADER: &str = "\
# Instructions of one operation on a guest's instruction clock, by kernel series, operation and way. Where the fan's
# ratio to plain routing, or a VIP's to the kernel's own ways to one, is over 5 % worse than here, `cargo xtask ci` fails;
# `cargo xtask bench clock --bless` writes what is measured.
";

/// Ours and what it is compared with.
const RATIOS: [(&str, &str); 7] = [
    ("fan", "routing"),
    ("vip", "ipvs"),
    ("vip", "ipvs-ipip"),
    ("vip", "nftables"),
    ("vip", "nftables-ipip"),
    ("vip-routed", "ipvs"),
    ("vip-routed", "nftables"),
];

/// How much worse than kept a ratio may be, in per cent.
const TOLERANCE: f64 = 5.0;

/// How containers hang on their hosts where figures are kept.
const KEPT_WIRING: &str = "bridged";

/// What is checked by `ci`.
const SERIES: &str = "6.12";

/// Instructions by operation and way.
type Figures = BTreeMap<String, BTreeMap<String, f64>>;
type Table = BTreeMap<String, Figures>;

/// Count instructions per operation in a guest whose clock is its instructions.
#[derive(Parser)]
#[command(name = "cargo xtask bench clock", bin_name = "cargo xtask bench clock")]
struct Arguments {
    /// Kernel series
    #[arg(default_value = SERIES)]
    kernels: Vec<String>,
    /// How containers hang on their hosts, Fanlight's and its peers': the figures that are kept are of bridged ones
    #[arg(long, default_value = KEPT_WIRING, value_parser = ["bridged", "routed"])]
    wiring: String,
    /// Keep what is measured as the figures to compare with
    #[arg(long, conflicts_with = "wiring")]
    bless: bool,
}

/// `cargo xtask bench clock ...`
pub(crate) fn bench(place: &Place, arguments: &[String]) -> Result<()> {
    let arguments =
        Arguments::parse_from(std::iter::once("clock").chain(arguments.iter().map(String::as_str)));
    setup::ensure(place, Scope::Vm, true)?;
    let built = Built::make(place)?;
    for series in &arguments.kernels {
        let measured = measure(place, &built, series, &arguments.wiring)?;
        if arguments.bless {
            let mut table = kept(&place.root)?;
            table.insert(series.clone(), rounded(measured));
            let text = toml::to_string(&table).with_context(|| format!("writing {TABLE}"))?;
            fs::write(place.root.join(TABLE), format!("{HEADER}\n{text}"))
                .with_context(|| format!("writing {TABLE}"))?;
            println!("{TABLE}: figures of {series} written");
        } else if arguments.wiring == KEPT_WIRING {
            compare(series, kept(&place.root)?.get(series), &measured)?;
        }
    }
    Ok(())
}

/// Measures, and fails when a figure is worse than the one kept.
pub(crate) fn check(place: &Place, built: &Built) -> Result<()> {
    compare(SERIES, kept(&place.root)?.get(SERIES), &measure(place, built, SERIES, KEPT_WIRING)?)
}

fn measure(place: &Place, built: &Built, series: &str, wiring: &str) -> Result<Figures> {
    let kernel = Kernel::fetch(place, series)?;
    println!("--- Linux {}, instruction clock", kernel.release);
    let mut spec =
        VmSpec::new(&kernel, &["/payload/bench", "clock", "--wiring", wiring, "--json", "/out/clock.json"]);
    spec.payload = vec![(built.binary(AGENT)?, AGENT.into()), (built.binary(BENCH)?, BENCH.into())];
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

/// A fraction of an instruction means nothing and only makes the file change.
fn rounded(mut figures: Figures) -> Figures {
    for cost in figures.values_mut().flat_map(BTreeMap::values_mut) {
        *cost = cost.round();
    }
    figures
}

/// Ratios, because the guest's kernel is the newest of its series: what it got better or worse at is not ours.
fn compare(series: &str, kept: Option<&Figures>, measured: &Figures) -> Result<()> {
    let Some(kept) = kept else {
        bail!("{TABLE} keeps no figures of {series}: `cargo xtask bench clock {series} --bless` writes them");
    };
    let mut worse = Vec::new();
    for (operation, costs) in kept {
        for (ours, peer) in RATIOS {
            let ratio = |costs: &BTreeMap<String, f64>| Some(costs.get(ours)? / costs.get(peer)?);
            let Some(old) = ratio(costs) else { continue };
            let Some(new) = measured.get(operation).and_then(ratio) else {
                worse.push(format!("{operation} of {ours} or {peer} was not measured"));
                continue;
            };
            let change = 100.0 * (new - old) / old;
            println!("{operation:12} {ours:10} {new:.3} x {peer}, kept {old:.3} ({change:+.1} %)");
            if change > TOLERANCE {
                worse.push(format!("{operation} of {ours} takes {new:.3} x {peer} instead of {old:.3}"));
            }
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

    fn figures(fan: f64) -> Figures {
        let costs = BTreeMap::from([("fan".into(), fan), ("routing".into(), 100_000.0)]);
        Figures::from([("round_trip".into(), costs)])
    }

    #[test]
    fn a_ratio_five_per_cent_worse_than_kept_is_a_failure() {
        let kept = figures(84_000.0);
        assert!(compare("6.12", Some(&kept), &figures(88_100.0)).is_ok());
        assert!(compare("6.12", Some(&kept), &figures(70_000.0)).is_ok());
        let error = compare("6.12", Some(&kept), &figures(88_300.0)).unwrap_err().to_string();
        assert!(error.contains("round_trip of fan takes 0.883 x routing instead of 0.840"), "{error}");
        assert!(compare("6.12", Some(&kept), &Figures::new()).is_err());
        assert!(compare("6.12", None, &kept).is_err(), "a kernel without figures");
    }

    #[test]
    fn a_vip_is_compared_with_each_of_its_peers_that_is_kept() {
        let figures = |ipvs| {
            let costs = [("vip", 80.0), ("ipvs", ipvs), ("nftables", 100.0)];
            let costs = costs.map(|(way, cost)| (way.to_owned(), cost));
            Figures::from([("connection".into(), BTreeMap::from(costs))])
        };
        assert!(compare("6.12", Some(&figures(100.0)), &figures(99.0)).is_ok());
        let error = compare("6.12", Some(&figures(100.0)), &figures(90.0)).unwrap_err().to_string();
        assert!(error.contains("connection of vip takes 0.889 x ipvs instead of 0.800"), "{error}");
    }

    #[test]
    fn kept_figures_are_read_as_they_were_written() {
        let table = Table::from([("6.12".into(), figures(84_000.0))]);
        assert_eq!(toml::from_str::<Table>(&toml::to_string(&table).unwrap()).unwrap(), table);
    }
}
