//! Others' packet filters, as a fan's packets meet them, or would if programs did not carry them past; and our accept rules where
//! Docker leaves a chain for them.

use std::{io, rc::Rc};

use control::{
    filter::{self, Base, Crossing, Findings, Holds, Hook, Kind, Owner, Table, Way},
    model::{Fan, HostFilters},
    observed::{Link, ObservedHost, Record},
};

use super::error::Fault;
use crate::kernel::{
    bpf::{ConfigMap, Datapath},
    iptables::{self, Program},
    iptables_save::Saved,
    nft_rules::{BaseChain, Ruleset},
};

/// Chain that Docker leaves to the operator.
const DOCKER_USER: &str = "DOCKER-USER";
/// Our own table, which drops what its fans ask it to.
const OWN: &str = "fanlight";
/// The chains of iptables' tables, by hook.
const CHAINS: [(Hook, &str); 4] = [
    (Hook::Prerouting, "PREROUTING"),
    (Hook::Input, "INPUT"),
    (Hook::Forward, "FORWARD"),
    (Hook::Postrouting, "POSTROUTING"),
];
/// Hooks that iptables has no chains for.
const OTHER_HOOKS: [Hook; 4] = [Hook::FromPort, Hook::ToPort, Hook::Ingress, Hook::Egress];
/// Tables of iptables in whose chains packets are dropped.
const TABLES: [&str; 3] = ["raw", "mangle", "filter"];

/// Which foreign rules drop the fans' packets. Nothing is changed.
pub(super) fn look(observed: &ObservedHost) -> Result<Findings, Fault> {
    find(&filter::ways(observed), &observed.links)
}

/// The same, after our accept rules are put into Docker's chain for operators where forwarded packets need them.
pub(super) fn check(observed: &ObservedHost) -> Result<Findings, Fault> {
    let ways = filter::ways(observed);
    let findings = find(&ways, &observed.links)?;
    let rules = rules(&ways);
    let mut changed = false;
    for program in Program::ALL {
        let Some(chain) = program.chain(DOCKER_USER)? else { continue };
        if chain.has_ours() || findings.is_forwarding_blocked() {
            changed |= chain.keep_last(&rules)?;
        }
    }
    if changed { find(&ways, &observed.links) } else { Ok(findings) }
}

/// Has all packets of the fans that foreign rules filter go by the stack, unless these are to be ignored.
pub(super) fn hold(findings: &Findings, datapath: &Datapath) {
    let is_honoured = datapath.config().host_filters() == HostFilters::Honour;
    let overlays = if is_honoured { findings.filters.overlays() } else { Vec::new() };
    datapath.config().set_filtered(&overlays);
}

/// What there is to say of foreign rules, a reason a line.
pub(super) fn reasons(findings: &Findings, datapath: Option<&Datapath>) -> Vec<String> {
    let config = datapath.map(Datapath::config);
    let wanted = config.map(ConfigMap::host_filters).unwrap_or_default();
    let seen = config.map(ConfigMap::filtered).unwrap_or_default();
    findings.reasons(|overlay| Holds::of(wanted, seen.contains(&overlay)))
}

/// Whether foreign rules drop what is bridged from other hosts to a fan's containers.
pub(super) fn bars_bridged(fan: &Fan) -> Result<bool, Fault> {
    Ok(!find(&[filter::bridged(fan)], &[])?.is_empty())
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

/// What is followed through the rules.
struct Sought<'a> {
    ways: &'a [Way],
    crossings: Vec<Crossing>,
    links: &'a [Link],
}

fn find(ways: &[Way], links: &[Link]) -> Result<Findings, Fault> {
    let mut findings = Findings::default();
    if !ways.is_empty() {
        let sought = Sought { ways, crossings: filter::crossings(ways), links };
        nf_tables(&sought, &mut findings).map_err(Fault::Rules)?;
        legacy(&sought, &mut findings)?;
    }
    Ok(findings)
}

fn nf_tables(sought: &Sought<'_>, findings: &mut Findings) -> io::Result<()> {
    let ruleset = Ruleset::open()?;
    let others = OTHER_HOOKS.map(|hook| (hook, ""));
    for (hook, builtin) in CHAINS.into_iter().chain(others) {
        let chains = match ruleset.filters(hook) {
            // The kernel has no nf_tables.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
            other => other?,
        };
        for chain in chains.iter().filter(|chain| &*chain.table != OWN) {
            let base = Base { name: &chain.name, drops: chain.drops };
            let devices = chain.devices.as_ref().map(|devices| sought.with_masters(devices));
            let owner = owner(chain, hook, builtin);
            sought.follow(&mut ruleset.table(chain), base, devices.as_deref(), &owner, findings)?;
        }
    }
    Ok(())
}

impl Sought<'_> {
    /// Follows all that a chain sees, or would see.
    fn follow(
        &self,
        table: &mut impl Table,
        base: Base<'_>,
        devices: Option<&[String]>,
        owner: &Owner,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let (numbers, packets) = filter::at(self.ways, owner.hook);
        findings.add(self.ways, &numbers, owner, &filter::dropped(&packets, table, base)?);
        let (numbers, packets) = filter::seen(&self.crossings, owner.hook, devices);
        let dropped = filter::filtered(&packets, table, base)?;
        findings.filters.add(&self.crossings, &numbers, owner, &dropped);
        Ok(())
    }

    /// Devices, and the bridges that packets of an endpoint behind them would go by.
    fn with_masters(&self, devices: &[String]) -> Vec<String> {
        let mut all = devices.to_vec();
        for link in self.links.iter().filter(|link| devices.contains(&link.name)) {
            let record = link.alias.as_deref().and_then(Record::from_alias);
            if record.is_some_and(|record| record.routed) {
                all.extend(self.ways.iter().map(|way| way.input.clone()));
            }
            let master = self.links.iter().find(|other| Some(other.index) == link.master);
            all.extend(master.map(|master| master.name.clone()));
        }
        all
    }
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

fn legacy(sought: &Sought<'_>, findings: &mut Findings) -> Result<(), Fault> {
    for table in TABLES {
        let Some(text) = iptables::legacy(table)? else { continue };
        let mut saved = Saved::read(&text);
        for (hook, builtin) in CHAINS {
            let base = Base { name: builtin, drops: saved.drops(builtin) };
            let iptables = Some(Program::Legacy.name());
            let owner = Owner { family: "", table: table.into(), base: builtin.into(), hook, iptables };
            sought.follow(&mut saved, base, None, &owner, findings).map_err(Fault::Rules)?;
        }
    }
    Ok(())
}
