//! Others' packet filters, as a fan's packets meet them, and our accept rules where Docker leaves a chain for them.

use std::{io, rc::Rc};

use control::{
    filter::{self, Base, Findings, Hook, Kind, Owner, Way},
    model::Fan,
    observed::ObservedHost,
};

use super::error::Fault;
use crate::kernel::{
    iptables::{self, Program},
    iptables_save::Saved,
    nft_rules::{BaseChain, Ruleset},
};

/// Chain that Docker leaves to the operator.
const DOCKER_USER: &str = "DOCKER-USER";
/// Our own table, which drops what its fans ask it to.
const OWN: &str = "fanlight";
/// The chains of iptables' tables, by hook.
const CHAINS: [(Hook, &str); 3] =
    [(Hook::Prerouting, "PREROUTING"), (Hook::Input, "INPUT"), (Hook::Forward, "FORWARD")];
/// Tables of iptables in whose chains packets are dropped.
const TABLES: [&str; 3] = ["raw", "mangle", "filter"];

/// Which foreign rules drop the fans' packets, a reason a line. Nothing is changed.
pub(super) fn look(observed: &ObservedHost) -> Result<Vec<String>, Fault> {
    Ok(find(&filter::ways(observed))?.reasons())
}

/// The same, after our accept rules are put into Docker's chain for operators where forwarded packets need them.
pub(super) fn check(observed: &ObservedHost) -> Result<Vec<String>, Fault> {
    let ways = filter::ways(observed);
    let findings = find(&ways)?;
    let rules = rules(&ways);
    let mut changed = false;
    for program in Program::ALL {
        let Some(chain) = program.chain(DOCKER_USER)? else { continue };
        if chain.has_ours() || findings.is_forwarding_blocked() {
            changed |= chain.keep_last(&rules)?;
        }
    }
    Ok(if changed { find(&ways)?.reasons() } else { findings.reasons() })
}

/// Whether foreign rules drop what is bridged from other hosts to a fan's containers.
pub(super) fn bars_bridged(fan: &Fan) -> Result<bool, Fault> {
    let findings = find(&[filter::bridged(fan)])?;
    Ok(!findings.reasons().is_empty())
}

/// Removes what [`check`] added to Docker's chain.
pub(super) fn undo() -> Result<(), Fault> {
    for program in Program::ALL {
        if let Some(chain) = program.chain(DOCKER_USER)? {
            chain.keep_last(&[])?;
        }
    }
    Ok(())
}

/// The slow path both ways, and egress with its answers: no wider, since they pass Docker's own rules by.
fn rules(ways: &[Way]) -> Vec<String> {
    ways.iter().filter(|way| way.kind != Kind::Lease).map(filter::xtables).collect()
}

fn find(ways: &[Way]) -> Result<Findings, Fault> {
    let mut findings = Findings::default();
    if !ways.is_empty() {
        nf_tables(ways, &mut findings).map_err(Fault::Rules)?;
        legacy(ways, &mut findings)?;
    }
    Ok(findings)
}

fn nf_tables(ways: &[Way], findings: &mut Findings) -> io::Result<()> {
    let ruleset = Ruleset::open()?;
    for (hook, builtin) in CHAINS {
        let chains = match ruleset.filters(hook) {
            // The kernel has no nf_tables.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
            other => other?,
        };
        let (numbers, packets) = filter::at(ways, hook);
        for chain in chains.iter().filter(|chain| &*chain.table != OWN) {
            let base = Base { name: &chain.name, drops: chain.drops };
            let dropped = filter::dropped(&packets, &mut ruleset.table(chain), base)?;
            findings.add(ways, &numbers, &owner(chain, hook, builtin), &dropped);
        }
    }
    Ok(())
}

fn owner(chain: &BaseChain, hook: Hook, builtin: &str) -> Owner {
    let is_xtables = chain.family() == "ip" && &*chain.name == builtin && TABLES.contains(&&*chain.table);
    let iptables = Some(Program::Nft).filter(|program| is_xtables && program.is_installed());
    Owner {
        family: chain.family(),
        table: Rc::clone(&chain.table),
        base: Rc::clone(&chain.name),
        hook,
        iptables: iptables.map(Program::name),
    }
}

fn legacy(ways: &[Way], findings: &mut Findings) -> Result<(), Fault> {
    for table in TABLES {
        let Some(text) = iptables::legacy(table)? else { continue };
        let mut saved = Saved::read(&text);
        for (hook, builtin) in CHAINS {
            let (numbers, packets) = filter::at(ways, hook);
            let base = Base { name: builtin, drops: saved.drops(builtin) };
            let dropped = filter::dropped(&packets, &mut saved, base).map_err(Fault::Rules)?;
            let iptables = Some(Program::Legacy.name());
            let owner = Owner { family: "", table: table.into(), base: builtin.into(), hook, iptables };
            findings.add(ways, &numbers, &owner, &dropped);
        }
    }
    Ok(())
}
