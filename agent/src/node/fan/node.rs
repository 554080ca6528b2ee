//! This node's fans: up, down, repair.

use std::{path::Path, time::Instant};

use control::{
    model::{Fan, FanSpec, HostFilters, Origin, PortRange, UplinkHook, dns_words},
    observed::{Mark, ObservedHost, Standing},
    reconcile::Host,
};
use ipnet::Ipv4Net;

use super::{
    LOCK, PATIENCE,
    error::{Error, Fault},
    forward,
    identity::{Identities, Identity},
    memory::{self, Memory},
    pieces::{Programs, Wanted, Work},
    uplinks,
};
use crate::kernel::{
    bpf::Datapath, dhcp, lock::Lock, netlink::Netlink, nft, reserved_ports, sysctl::Remembered,
};

/// This node's fans, in the network and mount namespace of the thread that opened it.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) netlink: Netlink,
    pub(super) uplinks: Vec<String>,
    wanted: Wanted,
}

/// What `up` did.
#[derive(Clone, Debug)]
pub struct Up {
    /// The fan.
    pub fan: Fan,
    /// Every change; empty when all was as it ought to be.
    pub changed: Vec<String>,
    /// What it is not to be relied on for, a line each: packets that others' filters drop, what is left of it under this
    /// host's former addresses, devices that it takes nothing from.
    pub warnings: Vec<String>,
}

/// What [`Node::repair`] did for one fan.
#[derive(Debug)]
pub struct Repair {
    /// What is remembered of the fan.
    pub mark: Mark,
    /// The fan and what was changed, or why it is not whole.
    pub outcome: Result<(Fan, Vec<String>), Error>,
}

impl Node {
    /// The node; `uplinks` is the agent's setting, empty for automatic choice. A tokio runtime must be running.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn open(uplinks: Vec<String>) -> Result<Self, Error> {
        let netlink = Netlink::open().map_err(Fault::from)?;
        Ok(Self { netlink, uplinks, wanted: Wanted::default() })
    }

    /// With a datapath for so many flows; `None`: as the memory allows.
    #[must_use]
    pub fn with_flows(self, flows: Option<u32>) -> Self {
        Self { wanted: Wanted { flows, ..self.wanted }, ..self }
    }

    /// With these ports for the programs' translated sources.
    #[must_use]
    pub fn with_nat_ports(self, ports: PortRange) -> Self {
        Self { wanted: Wanted { ports: Some(ports), ..self.wanted }, ..self }
    }

    /// With this asked for at the uplinks.
    #[must_use]
    pub fn with_uplink_hook(self, hook: UplinkHook) -> Self {
        Self { wanted: Wanted { uplink_hook: Some(hook), ..self.wanted }, ..self }
    }

    /// With this done about others' packet filters.
    #[must_use]
    pub fn with_host_filters(self, filters: HostFilters) -> Self {
        Self { wanted: Wanted { host_filters: Some(filters), ..self.wanted }, ..self }
    }

    /// Its netlink socket.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// The lock around every change of fans and endpoints, waited for as long as a command does. It stops the thread.
    ///
    /// # Errors
    /// Another process holds it, or its file can't be opened.
    pub fn lock(&self) -> Result<Lock, Error> {
        Ok(Lock::wait(Path::new(LOCK), PATIENCE).map_err(Fault::from)?)
    }

    /// Keeps ports from the sockets of this host, as long as any fan stands, in place of those of an earlier call. Says
    /// whether anything changed.
    ///
    /// # Errors
    /// The host would be left without ports, or the setting can't be read or written.
    pub fn reserve_ports(&self, _lock: &Lock, ports: PortRange) -> Result<bool, Error> {
        let (first, last) = reserved_ports::local().map_err(Fault::from)?;
        ports.check_beside(PortRange(first, last)).map_err(Fault::Ports)?;
        let mut sysctls =
            Remembered::load(&Path::new(super::RUN).join("sysctls.json")).map_err(Fault::from)?;
        Ok(sysctls.reserve_ports(ports.0, ports.1).map_err(Fault::from)?)
    }

    /// What the host has and which fans stand.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub async fn observe(&self) -> Result<ObservedHost, Error> {
        self.observe_for(&[]).await
    }

    /// The same for fans over these overlays, which need not stand.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub async fn observe_for(&self, overlays: &[Ipv4Net]) -> Result<ObservedHost, Error> {
        let memory = Memory::load(&Path::new(super::RUN).join("fans.json"))?;
        Ok(memory::observe(&self.netlink, &memory, overlays).await?)
    }

    /// Brings a fan up. The same fan again is repaired; with other options it is refused. A failing step takes back
    /// what this call did.
    ///
    /// # Errors
    /// What was asked for contradicts itself, this host, or the fan that is up; or a step failed.
    pub async fn up(&self, _lock: &Lock, spec: &FanSpec, origin: Origin) -> Result<Up, Error> {
        let mut work = Work::begin(&self.netlink, &[spec.overlay]).await?;
        let standing = work.observed.fan(spec.overlay).cloned();
        let origin = standing.as_ref().map_or(origin, |standing| standing.mark.origin);
        let fan = resolve(&work.observed, &self.uplinks, spec, origin)?;
        if let Some(standing) = &standing {
            check_same(&standing.mark, spec, &fan)?;
        }
        let fan =
            Fan { spec: standing.as_ref().map_or_else(|| spec.clone(), |it| it.mark.spec.clone()), ..fan };
        let failed = |fault: Fault| Error::Failed { overlay: spec.overlay, fault };
        check_programs(spec).map_err(failed)?;
        match work.bring_up(&fan, self.wanted).await {
            Ok(mut warnings) => {
                warnings.extend(work.observed.renumbered(spec.overlay));
                warnings.extend(unwatched(&Host::of(&work.observed, &self.uplinks), &fan));
                Ok(Up { fan, changed: work.changed, warnings })
            }
            Err(fault) => {
                if standing.is_none() {
                    work.take_back(&self.uplinks, &fan).await;
                }
                Err(failed(fault))
            }
        }
    }

    /// Takes a fan down, with what is left of it under former addresses; the host is as it was before. Options
    /// beside the two networks are not looked at. Gives what is left as it is, and why.
    ///
    /// # Errors
    /// The fan is not up, is up over another underlay, or is in use; or a step failed, after all were tried.
    pub async fn down(&self, _lock: &Lock, spec: &FanSpec) -> Result<Vec<String>, Error> {
        let overlay = spec.overlay;
        let mut work = Work::begin(&self.netlink, &[spec.overlay]).await?;
        let victims: Vec<Standing> = work
            .observed
            .standing
            .iter()
            .filter(|standing| standing.mark.overlay() == overlay)
            .cloned()
            .collect();
        let Some(first) = victims.iter().find(|victim| !victim.mark.stale).or(victims.first()) else {
            return Err(Error::NotUp { overlay });
        };
        if !self.same_underlay(&work.observed, &first.mark, spec) {
            let differences = format!("underlay {} instead of the one given", first.mark.underlay());
            return Err(Error::Different { overlay, differences });
        }
        let users: Vec<String> = victims.iter().flat_map(|victim| work.observed.users(victim)).collect();
        if !users.is_empty() {
            return Err(Error::InUse { overlay, users });
        }
        let failed = |fault| Error::Failed { overlay, fault };
        // An `up` that died may have made some maps only: then the rest is made, to have all removed.
        let datapath = Datapath::open_existing().or_else(|_half_made| Datapath::open().map(Some));
        let datapath = datapath.map_err(|error| failed(error.into()))?;
        let faults = work.take_down(&self.uplinks, &victims, datapath).await;
        if faults.is_empty() { Ok(work.remarks) } else { Err(Error::Incomplete { overlay, faults }) }
    }

    /// Brings every fan that is up back to what it ought to be: after a lost route, a flushed ruleset, a new uplink
    /// or MTU, another address.
    ///
    /// # Errors
    /// The host's state could not be read; what fails for one fan is in its [`Repair`].
    pub async fn repair(
        &self,
        _lock: &Lock,
        datapath: &Datapath,
        identities: &mut Identities,
    ) -> Result<Vec<Repair>, Error> {
        let mut work = Work::begin(&self.netlink, &[]).await?;
        let marks: Vec<Mark> = work.standing_marks().into_iter().cloned().collect();
        let mut repairs = Vec::new();
        for mark in marks {
            let outcome = self.repair_one(&mut work, datapath, &mark, identities).await;
            let changed = std::mem::take(&mut work.changed);
            repairs.push(Repair { mark, outcome: outcome.map(|fan| (fan, changed)) });
        }
        repair_table(&mut work, datapath, &mut repairs);
        let fans: Vec<Fan> =
            repairs.iter().filter_map(|repair| Some(repair.outcome.as_ref().ok()?.0.clone())).collect();
        // A fan whose uplink is not known now keeps its programs.
        if fans.len() == repairs.len() {
            work.sweep(datapath, &fans)?;
        }
        work.clear_stale(datapath).await?;
        Ok(repairs)
    }

    async fn repair_one(
        &self,
        work: &mut Work<'_>,
        datapath: &Datapath,
        mark: &Mark,
        identities: &mut Identities,
    ) -> Result<Fan, Error> {
        let (overlay, address) = (mark.overlay(), mark.address);
        let gone =
            |unfit| Error::AddressGone { overlay, underlay: mark.spec.underlay.clone(), address, unfit };
        let mut host = Host::of(&work.observed, &self.uplinks);
        let unfit = match identities.judge(Instant::now(), overlay, address, &host.addresses) {
            Identity::Present => Vec::new(),
            Identity::Away => return Err(gone(Vec::new())),
            Identity::Gone { unfit } => unfit,
        };
        host.addresses.retain(|other| !unfit.contains(&other.address));
        let resolved = host.resolve(&mark.spec, mark.origin);
        let fan = match resolved {
            Err(_no_other) if !unfit.is_empty() => return Err(gone(unfit)),
            other => other.map_err(|source| Error::Impossible { overlay, source })?,
        };
        let failed = |fault| Error::Failed { overlay, fault };
        work.ensure(&mut Programs::of(datapath), &fan).await.map_err(failed)?;
        Ok(fan)
    }

    /// Which foreign rules drop the fans' packets, a line each, after our accept rules are put where Docker
    /// leaves a chain for them. Where they drop some that programs carry past them, these go by the stack from now on.
    ///
    /// # Errors
    /// The rules can't be read, or ours not be written.
    pub async fn check_filters(&self, datapath: Option<&Datapath>) -> Result<Vec<String>, Error> {
        let findings = forward::check(&self.observe().await?)?;
        if let Some(datapath) = datapath {
            forward::hold(&findings, datapath);
        }
        Ok(forward::reasons(&findings, datapath))
    }

    /// The same of what there is: nothing is changed.
    ///
    /// # Errors
    /// The rules can't be read.
    pub fn filters(
        &self,
        observed: &ObservedHost,
        datapath: Option<&Datapath>,
    ) -> Result<Vec<String>, Error> {
        Ok(forward::reasons(&forward::look(observed)?, datapath))
    }

    /// Uplinks that go by tc alone although XDP is asked for, a line each with what to do.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub async fn hindered(&self, datapath: &Datapath, uplinks: &[u32]) -> Result<Vec<String>, Error> {
        // Most nodes ask for none.
        if datapath.uplinks().asked() != Some(UplinkHook::Xdp) {
            return Ok(Vec::new());
        }
        let links = self.netlink.links().await.map_err(Fault::from)?;
        Ok(uplinks::hindered(datapath, &links, uplinks).map_err(Fault::from)?)
    }

    /// Whether operands mean the underlay of a fan that is up: spelled the same, or resolving to the same.
    fn same_underlay(&self, observed: &ObservedHost, mark: &Mark, spec: &FanSpec) -> bool {
        mark.spec.underlay == spec.underlay
            || resolve(observed, &self.uplinks, spec, mark.origin)
                .is_ok_and(|fan| (fan.underlay, fan.address) == (mark.underlay(), mark.address))
    }
}

/// The table of all fans comes last: an `nft` that hangs keeps no other piece waiting, and is run once. The first whole fan
/// tells of it.
fn repair_table(work: &mut Work<'_>, datapath: &Datapath, repairs: &mut [Repair]) {
    let Some(first) = repairs.iter_mut().find(|repair| repair.outcome.is_ok()) else { return };
    let overlay = first.mark.overlay();
    match (work.table(datapath), &mut first.outcome) {
        (Err(fault), outcome) => *outcome = Err(Error::Failed { overlay, fault }),
        (Ok(()), Ok((_fan, changed))) => changed.append(&mut work.changed),
        (Ok(()), Err(_)) => {}
    }
}

fn resolve(
    observed: &ObservedHost,
    uplinks: &[String],
    spec: &FanSpec,
    origin: Origin,
) -> Result<Fan, Error> {
    let resolved = Host::of(observed, uplinks).resolve(spec, origin);
    resolved.map_err(|source| Error::Impossible { overlay: spec.overlay, source })
}

/// What to do where tunnel packets may come in by devices that the fan does not take them from.
fn unwatched(host: &Host, fan: &Fan) -> Option<String> {
    let others = host.unwatched(fan);
    let all: Vec<&str> =
        fan.uplinks().map(|uplink| uplink.name.as_str()).chain(others.iter().map(String::as_str)).collect();
    (!others.is_empty()).then(|| {
        format!(
            "uplinks: fan {}: tunnel packets that come in by {} are not taken; if some do, name all devices in \
             /etc/fanlight/fanlight.toml, `[node] uplink = {all:?}`, and bring the fan up again",
            fan.spec.overlay,
            others.join(", ")
        )
    })
}

/// Programs that the fan needs, before anything is changed.
fn check_programs(spec: &FanSpec) -> Result<(), Fault> {
    nft::check()?;
    if spec.dhcp {
        dhcp::check()?;
    }
    Ok(())
}

/// The options of an `up` must be those of the fan that is up.
fn check_same(mark: &Mark, spec: &FanSpec, fan: &Fan) -> Result<(), Error> {
    let name = |bridge: &Option<String>| bridge.clone().unwrap_or_else(|| "by slice".to_owned());
    let (old, new) = (&mark.spec, spec);
    let mut pairs = vec![
        ("encapsulation", old.encapsulation.to_string(), new.encapsulation.to_string()),
        ("host-reserve", old.host_reserve.to_string(), new.host_reserve.to_string()),
        ("egress", old.egress.to_string(), new.egress.to_string()),
        ("bridge", name(&old.bridge), name(&new.bridge)),
        ("dhcp", old.dhcp.to_string(), new.dhcp.to_string()),
        ("dns", dns_words(&old.dns), dns_words(&new.dns)),
    ];
    if old.underlay != new.underlay && (fan.underlay, fan.address) != (mark.underlay(), mark.address) {
        pairs.push(("underlay", mark.underlay().to_string(), fan.underlay.to_string()));
    }
    let differences: Vec<String> = pairs
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(key, old, new)| format!("{key} {old} instead of {new}"))
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    let overlay: Ipv4Net = spec.overlay;
    Err(Error::Different { overlay, differences: differences.join(", ") })
}
