//! Every map and load-time constant of the programs. Layouts and owners: [`dataplane_common::abi`].

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    btf_maps,
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
    programs::TcContext,
};
use dataplane_common::{
    abi::{
        BACKEND_FILTER_BITS, BackendRecord, COUNTERS, Config, EVENT_RING_BYTES, EndpointRecord, Event,
        FRAGMENTED_PACKETS, FanRecord, FlowKey, FlowTable, FragmentKey, FragmentRecord, LiveFlow,
        MAX_BACKENDS, MAX_ENDPOINTS, MAX_FANS, MAX_PATHS, MAX_SERVICES, NEAR_SLOTS, PATH_MTU_LIFE_NS,
        PathRecord, REFUSALS_PER_SECOND, REFUSED_CLIENTS, RING_UNIT, RefusalRecord, SEEN_SHIFT,
        SEGMENT_ELEMENTS, SEGMENTS, ServiceRecord, ServiceWord, Uplinks, VIP_FILTER_BITS, VipKey,
        backend_bit, counter_index, idle, vip_bit,
    },
    ct::{Draft, Flows, Tuple},
    decide::Tables,
    lb::Services,
    outcome::{Hook, Outcome, Stage},
};

use crate::{loops, watch};

mod flows;
mod former;
mod translated;

/// How long a first fragment is remembered, on the coarse clock: as long as Linux waits for the others.
const REASSEMBLY: u32 = (30_000_000_000_u64 >> SEEN_SHIFT) as u32;

/// `BPF_F_ADJ_ROOM_DECAP_L3_IPV4` where the kernel knows it (6.3 and later), else 0.
#[unsafe(no_mangle)]
static DECAP_FLAGS: Global<u64> = Global::new(0);

/// 0 → fans and devices of this node. Written by the agent through a mapping, read by every program.
#[map(name = "config")]
static CONFIG: Array<Config> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// 0 → devices that run `uplink_xdp`. Written by the agent through a mapping.
#[map(name = "uplinks")]
static UPLINKS: Array<Uplinks> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Overlay address → endpoint of this host. Written by the agent, read by every program.
#[map(name = "endpoints")]
static ENDPOINTS: HashMap<[u8; 4], EndpointRecord> =
    HashMap::with_max_entries(MAX_ENDPOINTS, BPF_F_NO_PREALLOC);

/// Slot of an address → endpoint of this host: what is in `endpoints`, faster. Written by the agent through a mapping.
#[map(name = "near")]
static NEAR: Array<EndpointRecord> = Array::with_max_entries(NEAR_SLOTS, BPF_F_MMAPABLE);

/// Underlay host → path MTU learnt from ICMP. Written by `uplink_ingress`, read by senders and the agent.
#[map(name = "paths")]
static PATHS: LruHashMap<[u8; 4], PathRecord> = LruHashMap::with_max_entries(MAX_PATHS, 0);

/// Hook and outcome → packets, per CPU.
#[map(name = "counters")]
static COUNTERS_MAP: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// [`Stage`] → its program. Filled by the agent, an array for each version of the programs.
#[map(name = "stages")]
static STAGES: ProgramArray = ProgramArray::with_max_entries(Stage::COUNT, 0);

/// What the agent must hear of at once.
#[map(name = "events")]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_RING_BYTES, 0);

/// Bit of a VIP's address → whether there may be a service. Written by the agent through a mapping.
#[map(name = "vip_filter")]
static VIP_FILTER: Array<u64> = Array::with_max_entries(VIP_FILTER_BITS / 64, BPF_F_MMAPABLE);

/// Bit of a backend → whether there may be one. Written by the agent through a mapping.
#[map(name = "backend_filter")]
static BACKEND_FILTER: Array<u64> = Array::with_max_entries(BACKEND_FILTER_BITS / 64, BPF_F_MMAPABLE);

/// VIP → index of its service; and an entry for each VIP's address. Written by the agent.
#[map(name = "services")]
static SERVICES: HashMap<VipKey, u32> = HashMap::with_max_entries(2 * MAX_SERVICES, BPF_F_NO_PREALLOC);

/// Index → service. Written by the agent through a mapping.
#[map(name = "service")]
static SERVICE: Array<ServiceRecord> = Array::with_max_entries(MAX_SERVICES, BPF_F_MMAPABLE);

/// Row → backend. Written by the agent through a mapping.
#[map(name = "backends")]
static BACKENDS: Array<BackendRecord> = Array::with_max_entries(MAX_BACKENDS, BPF_F_MMAPABLE);

/// Segment → ring slots, 4 to 16 to an element. Written by the agent through mappings; segments exist as needed.
#[btf_map(name = "rings")]
static RINGS: btf_maps::ArrayOfMaps<Segment, { SEGMENTS as usize }> = btf_maps::ArrayOfMaps::new();

type Segment = btf_maps::Array<u64, { SEGMENT_ELEMENTS as usize }, { BPF_F_MMAPABLE as usize }>;

/// Fragmented packet → the addresses that its first fragment got. Written by the programs.
#[map(name = "fragments")]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentRecord> =
    LruHashMap::with_max_entries(FRAGMENTED_PACKETS, 0);

/// Client → how many ICMP errors it was refused with of late. Written by the programs.
#[map(name = "refusals")]
static REFUSALS: LruHashMap<u32, RefusalRecord> = LruHashMap::with_max_entries(REFUSED_CLIENTS, 0);

/// Memory follows the endpoints that exist instead of the table's capacity.
const BPF_F_NO_PREALLOC: u32 = 1;

/// Flags that removing an IPv4 header takes on this kernel.
#[inline(always)]
pub fn decap_flags() -> u64 {
    DECAP_FLAGS.load()
}

/// Goes on as a stage; returns where that is not to be had.
#[inline(always)]
pub fn go_on(ctx: &TcContext, stage: Stage) {
    // SAFETY: nothing of this program has to be dropped.
    unsafe { STAGES.tail_call(ctx, stage as u32) };
}

/// Whether an address is a device's own, of those that run `uplink_xdp`.
#[inline(always)]
pub fn is_own_mac(ifindex: u32, mac: [u16; 3]) -> bool {
    UPLINKS.get(0).is_some_and(|uplinks| uplinks.is_own(ifindex, mac))
}

/// Counts one packet.
#[inline(always)]
pub fn count(hook: Hook, outcome: Outcome) {
    if let Some(counter) = COUNTERS_MAP.get_ptr_mut(counter_index(hook, outcome)) {
        // SAFETY: the pointer is to this CPU's element, and a program is not preempted by itself on its CPU.
        unsafe { *counter += 1 }
    }
}

/// The coarse clock ([`SEEN_SHIFT`]).
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: reads the clock.
    (unsafe { bpf_ktime_get_coarse_ns() } >> SEEN_SHIFT) as u32
}

/// Remembers that inner packets to `host` must not be larger than `mtu`, and tells the agent.
#[inline(always)]
pub fn learn_path_mtu(host: u32, mtu: u32) {
    // SAFETY: reads the clock.
    let until = unsafe { bpf_ktime_get_ns() } + PATH_MTU_LIFE_NS;
    let record = PathRecord { until, mtu, spare: 0 };
    if PATHS.insert(host.to_be_bytes(), record, 0).is_err() {
        return;
    }
    if let Some(config) = CONFIG.get_ptr_mut(0) {
        // SAFETY: a valid element; one aligned 4-byte store. Two CPUs that lower it at once may leave the higher
        // of both for the moment; the agent writes the minimum when it hears of them.
        unsafe {
            if mtu < (*config).smallest_path_mtu {
                (*config).smallest_path_mtu = mtu;
            }
        }
    }
    let event = Event { kind: Event::PATH_MTU, host, mtu, spare: 0 };
    // A full ring loses the event only: the agent also reads the table every few seconds.
    let _ = EVENTS.output::<Event>(event, 0);
}

/// The maps as decisions see them.
#[derive(Clone, Copy)]
pub struct Maps {
    /// Looked up once a program: each look-up costs a dozen instructions.
    config: Option<&'static Config>,
}

impl Maps {
    /// For one run of a program.
    #[inline(always)]
    pub fn new() -> Self {
        Self { config: CONFIG.get(0) }
    }

    /// The fan in a slot.
    #[inline(always)]
    pub fn fan(self, slot: u32) -> Option<&'static FanRecord> {
        self.config?.fans.get(slot as usize % MAX_FANS)
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn may_refuse(&self, client: u32) -> bool {
        let second = self.now() >> 10;
        if let Some(record) = REFUSALS.get_ptr_mut(client) {
            // SAFETY: a valid element; CPUs that count at once may lose a count.
            let record = unsafe { &mut *record };
            if record.second == second {
                record.sent += 1;
                return record.sent <= REFUSALS_PER_SECOND;
            }
        }
        // Where there is no room to count, it is sent.
        let _ = REFUSALS.insert(client, RefusalRecord { second, sent: 1 }, 0);
        true
    }

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        self.config
    }

    #[inline(always)]
    fn endpoint(&self, address: u32) -> Option<&EndpointRecord> {
        if let Some(near) = NEAR.get(EndpointRecord::near_slot(address))
            && near.address == address
        {
            return Some(near);
        }
        // SAFETY: elements live until the program has ended. A change in between makes it read a mixture of the old
        // record and the new, which misdelivers one frame to an endpoint that drops it.
        unsafe { ENDPOINTS.get(address.to_be_bytes()) }
    }

    #[inline(always)]
    fn path_mtu(&self, host: u32) -> Option<u32> {
        // SAFETY: as above.
        let record = unsafe { PATHS.get(host.to_be_bytes())? };
        // SAFETY: reads the clock.
        let now = unsafe { bpf_ktime_get_ns() };
        if record.until > now { Some(record.mtu) } else { None }
    }

    #[inline(always)]
    fn may_be_translated(&self, address: u32, port: u16, protocol: u8) -> bool {
        translated::may_be(address, port, protocol)
    }

    #[inline(always)]
    fn is_translated(&self, key: &FlowKey) -> bool {
        translated::holds(key, self.now())
    }

    #[inline(always)]
    fn note_translated(&self, key: &FlowKey) {
        translated::note(key, self.now());
    }
}

impl Services for Maps {
    #[inline(always)]
    fn may_be_vip(&self, address: u32) -> bool {
        bit(&VIP_FILTER, vip_bit(address))
    }

    #[inline(always)]
    fn is_vip(&self, address: u32) -> bool {
        // SAFETY: the value is not looked at.
        unsafe { SERVICES.get(VipKey::any(address)) }.is_some()
    }

    #[inline(always)]
    fn may_be_backend(&self, address: u32, port: u16, protocol: u8) -> bool {
        // A backend of port 0 serves all ports.
        bit(&BACKEND_FILTER, backend_bit(address, port, protocol))
            || bit(&BACKEND_FILTER, backend_bit(address, 0, protocol))
    }

    #[inline(always)]
    fn service(&self, key: &VipKey) -> Option<(u32, ServiceWord)> {
        // SAFETY: the value is copied at once.
        let index = unsafe { *SERVICES.get(key)? };
        let record = SERVICE.get(index)?;
        // The element may have been given to another VIP since.
        if record.key == *key { Some((index, ServiceWord::unpack(record.word))) } else { None }
    }

    #[inline(always)]
    fn ring_slot(&self, word: ServiceWord, slot: u32) -> Option<u32> {
        let log2_bits = word.log2_bits;
        let element = word.ring * RING_UNIT + (slot >> ((6 - log2_bits) & 7));
        let several = RINGS.get_value(element / SEGMENT_ELEMENTS, &(element % SEGMENT_ELEMENTS))?;
        let bits = 1_u32 << (log2_bits & 7);
        Some((several >> ((slot << log2_bits) & 63)) as u32 & ((1 << (bits & 31)) - 1))
    }

    #[inline(always)]
    fn backend(&self, row: u32) -> Option<&BackendRecord> {
        BACKENDS.get(row)
    }

    #[inline(always)]
    fn any(&self, most: u32, does: impl FnMut(u32) -> bool) -> bool {
        loops::any(most, does)
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: draws a number.
        unsafe { bpf_get_prandom_u32() }
    }
}

impl Flows for Maps {
    #[inline(always)]
    fn migrate(&self, key: &FlowKey) -> bool {
        former::migrate(key)
    }

    #[inline(always)]
    fn has_former(&self) -> bool {
        former::are_there()
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<&LiveFlow> {
        flows::live(FlowTable::confirmed(key.protocol), key)
    }

    #[inline(always)]
    fn unconfirmed(&self, key: &FlowKey) -> Option<&LiveFlow> {
        flows::live(FlowTable::Unconfirmed as u32, key)
    }

    #[inline(always)]
    fn enter_flow(&self, key: &FlowKey, entry: &LiveFlow, replaces: bool) -> bool {
        flows::enter(FlowTable::confirmed(key.protocol), key, entry, replaces)
    }

    #[inline(always)]
    fn enter_unconfirmed(&self, key: &FlowKey, entry: &LiveFlow, replaces: bool) -> bool {
        flows::enter(FlowTable::Unconfirmed as u32, key, entry, replaces)
    }

    #[inline(always)]
    fn take_over(&self, key: &FlowKey, does: impl FnOnce() -> bool) -> bool {
        flows::take_over(key, does)
    }

    #[inline(always)]
    fn forget(&self, key: &FlowKey) {
        // Gone already is as good.
        flows::remove(FlowTable::confirmed(key.protocol), key);
        flows::remove(FlowTable::Unconfirmed as u32, key);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Tuple {
        // SAFETY: the value is copied at once.
        let Some(first) = (unsafe { FRAGMENTS.get(key) }) else { return Tuple::KEPT };
        if idle(first.seen, self.now()) > REASSEMBLY {
            Tuple::KEPT
        } else {
            Tuple::addresses(first.src, first.dst)
        }
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, addresses: &Tuple) {
        let record = FragmentRecord { src: addresses.src, dst: addresses.dst, seen: self.now() };
        // Where it is not remembered, the fragments that follow are dropped as if they had come first.
        let _ = FRAGMENTS.insert(key, record, 0);
    }

    #[inline(always)]
    fn snat_ports(&self) -> (u16, u16) {
        self.config.map_or((0, 0), Config::snat_ports)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        now()
    }

    #[inline(always)]
    fn draft(&self, of: Draft) -> Option<&LiveFlow> {
        flows::draft(of)
    }

    #[inline(always)]
    fn announce(&self, key: &FlowKey, forward: &LiveFlow) {
        watch::new_flow(key, forward);
    }
}

#[inline(always)]
fn bit(filter: &Array<u64>, bit: u32) -> bool {
    filter.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 != 0)
}
