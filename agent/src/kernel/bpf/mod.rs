//! The kernel side of the datapath: loading, pinning, attaching and reading what the programs do.
//!
//! Everything that packets need outlives this process: maps and links are pinned, so a stopped, killed or replaced
//! agent loses nothing. A [`Datapath`] takes over what it finds and changes only what differs.

mod attr;
mod clsact;
mod config_map;
mod counters;
mod endpoints;
mod error;
mod events;
mod flow_accounting;
mod flow_maps;
mod flows;
mod groups;
mod links;
mod logs;
mod look;
mod object;
mod paths;
mod pins;
mod private;
mod probe;
mod resize;
mod services;
mod stages;
mod sys;
mod tables;
mod times;
mod trace;
mod translated;
mod uplink_map;
mod xdp;

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::maps::MapData;
use control::observed::XdpMode;
use dataplane_common::{abi::PathRecord, outcome::Hook};

pub use self::tables::MapMemory;
pub use self::{
    config_map::ConfigMap,
    counters::Counters,
    endpoints::EndpointMap,
    error::{Error, Result},
    events::EventReader,
    flows::{FlowRoom, FlowTable, IDLE_FLOWS, check_flows, coarse_now, room_for},
    groups::connect_programs,
    look::Look,
    object::{GENERIC_EARLY, LoadedProgram, program_name},
    paths::{PathMap, uptime},
    private::{Context, Private, TestRun},
    probe::Mechanism,
    services::{Candidate, Ended, FlowCount, FlowWalk, Gone, MakeRing, ServiceMap, Writer as ServiceWriter},
    stages::stage_name,
    times::{Runs, runs},
    trace::Watcher,
    translated::TranslatedMap,
    uplink_map::UplinkMap,
};
use self::{flow_maps::FlowMaps, flows::FlowSizes, pins::Pins, tables::Tables};

/// What [`Datapath::attach`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Nothing of ours was there.
    New,
    /// Another version's program was, and was replaced without a gap.
    Replaced,
    /// The same program was there already.
    Unchanged,
}

/// One of our programs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Where packets meet it.
    pub hook: Hook,
    /// The interface.
    pub ifindex: u32,
    /// The kernel's number for the program.
    pub program_id: u32,
}

/// Somebody else's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignProgram {
    /// The kernel's number for it.
    pub id: u32,
    /// Its name, as its owner gave it.
    pub name: String,
}

impl ForeignProgram {
    /// The one with this number.
    pub fn by_id(id: u32) -> Self {
        let name = sys::program_info_by_id(id).map(|info| info.name).unwrap_or_default();
        Self { id, name }
    }
}

impl LoadedProgram {
    fn fd_number(&self) -> u32 {
        self.fd.as_fd().as_raw_fd() as u32
    }
}

/// The program that an interface ought to run.
struct Wanted<'a> {
    program: &'a LoadedProgram,
    /// The maps that tell one datapath from another, as far as it uses them.
    maps: Vec<u32>,
}

impl Wanted<'_> {
    /// Whether a running program is the same: the same instructions on the same maps.
    fn is(&self, running: &sys::ProgramInfo) -> bool {
        running.tag == self.program.tag && self.maps.iter().all(|map| running.map_ids.contains(map))
    }
}

/// The node's datapath: pinned maps, loaded programs, and where they are attached.
pub struct Datapath {
    pins: Pins,
    tables: Tables,
    mechanism: Mechanism,
    programs: Vec<LoadedProgram>,
    /// The kernel's number for the programs' map `stages`.
    stages: u32,
    refusals: xdp::Refusals,
}

impl Datapath {
    /// Loads the programs and creates the maps, or takes over those that are pinned. Attaches nothing.
    ///
    /// Refuses pinned maps of another shape and a newer layout, touching nothing.
    pub fn open() -> Result<Self> {
        // A caller that names no size has no services: no memory is taken for flows that never come.
        Self::open_for(Some(IDLE_FLOWS))
    }

    /// As [`open`](Self::open), with tables for so many flows where they are made now; `None`: as the memory allows.
    pub fn open_for(flows: Option<u32>) -> Result<Self> {
        let pins = Pins::new();
        let mechanism = probe::mechanism()?;
        pins.create()?;
        let mut ebpf = object::create_maps(Some(&pins))?;
        let tables = FlowMaps::pinned(&ebpf, &pins, FlowSizes::new(flows)?)?.tables(&ebpf)?;
        let stages = object::map_id(ebpf.map(stages::MAP), stages::MAP)?;
        let programs = object::programs(&mut ebpf, &pins)?;
        tables.config.initialise();
        links::prune(&pins)?;
        Ok(Self { pins, tables, mechanism, programs, stages, refusals: xdp::Refusals::default() })
    }

    /// As this one, with flow tables for so many flows instead of its own, whose flows go on. They are brought over by
    /// their next packets, and the rest by [`bring_flows_over`](Self::bring_flows_over). When this fails, this one's
    /// tables stay.
    pub fn with_other_flows(&self, flows: Option<u32>) -> Result<Self> {
        if self.has_former_flows() {
            Self::bring_flows_over()?;
        }
        flow_maps::replace(&self.pins, FlowSizes::new(flows)?)?;
        Self::open_for(flows).inspect_err(|_| flow_maps::take_back(&self.pins))
    }

    /// Whether flows may be left in tables that others have replaced.
    pub fn has_former_flows(&self) -> bool {
        flow_maps::has_former(&self.pins)
    }

    /// Brings the rest of the flows over from tables that others have replaced, once no program of an earlier version is
    /// attached any more: seconds for a million. How many entries these were.
    pub fn bring_flows_over() -> Result<u64> {
        flow_maps::migrate(&Pins::new())
    }

    /// Opens the pinned maps only, to read and write them; `None` when nothing is pinned, or not all: another process is
    /// taking it away at this moment, or an older version without some of the maps is in place.
    pub fn open_existing() -> Result<Option<Self>> {
        let pins = Pins::new();
        if !pins.exist()? {
            return Ok(None);
        }
        let mechanism = probe::mechanism()?;
        match Tables::new(|name| MapData::from_pin(pins.map(name)).map_err(Error::map(name))) {
            Ok(tables) => {
                let refusals = xdp::Refusals::default();
                Ok(Some(Self { pins, tables, mechanism, programs: Vec::new(), stages: 0, refusals }))
            }
            Err(Error::Map { source, .. }) if endpoints::is_missing(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Loads the named programs ([`program_name`], [`bench`]) with maps of their own, pinned and attached nowhere.
    pub fn private(programs: &[&str]) -> Result<Private> {
        Private::open(programs)
    }

    /// The programs that were loaded, none by [`open_existing`](Self::open_existing).
    pub fn programs(&self) -> &[LoadedProgram] {
        &self.programs
    }

    /// How this kernel attaches programs.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Makes an interface run a hook's program; `name` is for messages.
    ///
    /// A program of another version is replaced atomically, the same one is left alone, and a link of a device that
    /// no longer exists is made anew.
    pub fn attach(&self, hook: Hook, ifindex: u32, name: &str) -> Result<Attached> {
        let wanted = self.wanted(hook).ok_or(Error::NotLoaded)?;
        match (hook, self.mechanism) {
            (Hook::UplinkXdp, _) => self.attach_early(ifindex, name, &[XdpMode::Native, XdpMode::Generic]),
            (_, Mechanism::Tcx) => links::attach(&self.pins, &wanted, ifindex, (name, links::BEFORE)),
            (_, Mechanism::Clsact) => clsact::attach(&wanted, ifindex, name),
        }
    }

    /// Whether an interface runs this version's program of a hook, on these maps.
    pub fn runs(&self, attachment: &Attachment) -> bool {
        let running = || sys::program_info_by_id(attachment.program_id);
        let mut wanted = self.all_wanted(attachment.hook);
        running().is_ok_and(|running| wanted.any(|wanted| wanted.is(&running)))
    }

    fn wanted(&self, hook: Hook) -> Option<Wanted<'_>> {
        self.all_wanted(hook).next()
    }

    /// All programs of a hook: one, but for those that either the driver or the kernel runs.
    fn all_wanted(&self, hook: Hook) -> impl Iterator<Item = Wanted<'_>> {
        self.programs
            .iter()
            .filter(move |program| program.hook == hook)
            .map(|program| self.on_own_maps(program))
    }

    fn on_own_maps<'a>(&'a self, program: &'a LoadedProgram) -> Wanted<'a> {
        let mut maps = vec![self.tables.config_id];
        // These know of no flows and call no stage.
        if !matches!(program.hook, Hook::EndpointEgress | Hook::UplinkXdp) {
            maps.extend([self.tables.flows_id, self.stages]);
        }
        Wanted { program, maps }
    }

    /// Takes our program off an interface; nothing there is fine.
    pub fn detach(&self, hook: Hook, ifindex: u32) -> Result<()> {
        match (hook, self.mechanism) {
            (Hook::UplinkXdp, _) | (_, Mechanism::Tcx) => links::detach(&self.pins, hook, ifindex),
            (_, Mechanism::Clsact) => clsact::detach(hook, ifindex),
        }
    }

    /// Whether the pinned maps are these: another process may have removed them, and made others since.
    pub fn is_pinned(&self) -> bool {
        let pinned = MapData::from_pin(self.pins.map("config")).and_then(|map| map.info());
        pinned.is_ok_and(|info| info.id() == self.tables.config_id)
    }

    /// Where our programs run in this namespace.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        let mut all = links::attachments(&self.pins)?;
        if self.mechanism == Mechanism::Clsact {
            all.extend(clsact::attachments()?);
        }
        Ok(all)
    }

    /// Forgets links of devices that are gone, and stages of versions whose programs are.
    pub fn prune(&self) -> Result<()> {
        links::prune(&self.pins)?;
        stages::prune(&self.pins, object::object_hash(), || self.attachments())
    }

    /// Others' programs that run before ours on a hook, and may end the chain. `ours` are all of ours.
    pub fn shadowed(&self, ours: &[Attachment]) -> Result<Vec<(Attachment, ForeignProgram)>> {
        let own: HashSet<u32> = ours.iter().map(|attachment| attachment.program_id).collect();
        let mut found = Vec::new();
        for &attachment in ours.iter().filter(|attachment| attachment.hook != Hook::UplinkXdp) {
            let before = match self.mechanism {
                Mechanism::Tcx => links::before(attachment)?,
                Mechanism::Clsact => clsact::before(attachment)?,
            };
            let others = before.into_iter().filter(|program| !own.contains(&program.id));
            found.extend(others.map(|program| (attachment, program)));
        }
        Ok(found)
    }

    /// Fans and devices.
    pub fn config(&self) -> &ConfigMap {
        &self.tables.config
    }

    /// Uplinks that run the program in front of `uplink-ingress`, and what is asked for.
    pub fn uplinks(&self) -> &UplinkMap {
        &self.tables.uplinks
    }

    /// Endpoints of this host.
    pub fn endpoints(&self) -> &EndpointMap {
        &self.tables.endpoints
    }

    /// Path MTUs learnt.
    pub fn paths(&self) -> &PathMap {
        &self.tables.paths
    }

    /// Flows that connection tracking translates.
    pub fn translated(&self) -> &TranslatedMap {
        &self.tables.translated
    }

    /// Services.
    pub fn services(&self) -> &ServiceMap {
        &self.tables.services
    }

    /// Sets the size below which packets need no path look-up from the paths that still count, and returns these.
    pub fn refresh_paths(&self) -> Result<Vec<(Ipv4Addr, PathRecord)>> {
        loop {
            let seen = self.config().smallest_path_mtu();
            let paths = self.paths().list()?;
            let learnt = paths.iter().map(|(_, path)| path.mtu).min().unwrap_or(u32::MAX);
            let smallest = if self.config().is_cut_off() { PathRecord::SILENT } else { learnt };
            // A program that learns writes the path first: seeing its size means seeing its path.
            if smallest == seen || self.config().replace_smallest_path(seen, smallest) {
                return Ok(paths);
            }
        }
    }

    /// Packets per hook and outcome, summed over the processors.
    pub fn counters(&self) -> Result<Counters> {
        self.tables.counters.read()
    }

    /// A reader of the programs' events. Needs a tokio runtime.
    pub fn events(&self) -> Result<EventReader> {
        EventReader::new(object::duplicate(&self.tables.events, "events")?)
    }

    /// A reader of the programs' events.
    pub fn watcher(&self) -> Result<Watcher> {
        Watcher::new(|name| self.tables.duplicate(name))
    }

    /// The tables as a decision reads them.
    pub fn look(&self) -> Result<Look<'_>> {
        Look::new(self)
    }

    /// Forwards the log lines of programs that were built with them, while the future is polled.
    pub fn forward_logs(&self) -> Result<Option<impl Future<Output = ()> + use<>>> {
        match self.programs.first() {
            Some(program) => logs::forward(program.id),
            None => Ok(None),
        }
    }

    /// Bytes of kernel memory that the maps take.
    pub fn memory(&self) -> Result<MapMemory> {
        self.tables.memory()
    }

    /// Detaches every program of ours and unpins everything.
    pub fn remove(self) -> Result<()> {
        for attachment in self.attachments()? {
            self.detach(attachment.hook, attachment.ifindex)?;
        }
        self.pins.remove()
    }
}
