//! `cargo xtask simulate`: clusters on simulated time.

use anyhow::{Result, bail};
use simulator::scenarios::{ALL, Options, Scenario};

/// Which scenarios, and how large.
#[derive(clap::Args)]
pub(crate) struct Request {
    /// What chance is drawn from; the same seed does the same
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nodes of the cluster
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(3..=60_000))]
    nodes: u32,
    /// Simulated minutes, where a scenario takes as long as it is given
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Scenarios by name; all when none is given
    scenario: Vec<String>,
}

/// Runs scenarios and prints what they found.
///
/// # Errors
/// A name that is none, or a scenario with a figure beyond its bound.
pub(crate) fn simulate(request: &Request) -> Result<()> {
    let Request { seed, nodes, minutes, scenario } = request;
    let options = Options { seed: *seed, nodes: *nodes as usize, minutes: *minutes };
    let mut failed = Vec::new();
    for scenario in chosen(scenario)? {
        println!("{} ({}), {nodes} nodes, seed {seed}", scenario.name, scenario.about);
        let report = scenario.run(options);
        println!("{report}");
        if report.has_failed() {
            failed.push(scenario.name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let (again, minutes) = (failed.join(" "), minutes);
    bail!(
        "beyond the bounds: {again}; once more with `cargo xtask simulate --seed {seed} --nodes {nodes} \
         --minutes {minutes} {again}`"
    )
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let all = || ALL.map(|scenario| scenario.name).join(", ");
    let one = |name: &String| {
        let Some(scenario) = ALL.iter().find(|scenario| scenario.name == *name) else {
            bail!("there is no scenario {name}; there are: {}", all());
        };
        Ok(scenario)
    };
    names.iter().map(one).collect()
}
