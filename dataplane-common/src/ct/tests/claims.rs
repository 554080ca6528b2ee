//! Two processors that want the port of a flow that is over, at the same moment.

use core::cell::Cell;

use super::*;

/// When another processor does something: after this one has looked, and before it takes an entry over, or while it does.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Before,
    While,
}

type Other<'t> = (Moment, &'t dyn Fn());

/// The tables of one processor, beside which another one does something.
struct Beside<'t> {
    tables: &'t Memory,
    other: Cell<Option<Other<'t>>>,
}

impl Services for Beside<'_> {
    fn may_be_vip(&self, address: u32) -> bool {
        self.tables.may_be_vip(address)
    }

    fn is_vip(&self, address: u32) -> bool {
        self.tables.is_vip(address)
    }

    fn may_be_backend(&self, address: u32, port: u16, protocol: u8) -> bool {
        self.tables.may_be_backend(address, port, protocol)
    }

    fn service(&self, key: &VipKey) -> Option<(u32, ServiceWord)> {
        self.tables.service(key)
    }

    fn ring_slot(&self, word: ServiceWord, slot: u32) -> Option<u32> {
        self.tables.ring_slot(word, slot)
    }

    fn backend(&self, row: u32) -> Option<&BackendRecord> {
        self.tables.backend(row)
    }

    fn random(&self) -> u32 {
        self.tables.random()
    }
}

impl Flows for Beside<'_> {
    fn flow(&self, key: &FlowKey) -> Option<&LiveFlow> {
        self.tables.flow(key)
    }

    fn unconfirmed(&self, key: &FlowKey) -> Option<&LiveFlow> {
        self.tables.unconfirmed(key)
    }

    fn enter_flow(&self, key: &FlowKey, entry: &LiveFlow, replaces: bool) -> bool {
        self.tables.enter_flow(key, entry, replaces)
    }

    fn enter_unconfirmed(&self, key: &FlowKey, entry: &LiveFlow, replaces: bool) -> bool {
        self.tables.enter_unconfirmed(key, entry, replaces)
    }

    fn take_over(&self, key: &FlowKey, does: impl FnOnce() -> bool) -> bool {
        match self.other.take() {
            Some((Moment::Before, other)) => {
                other();
                self.tables.take_over(key, does)
            }
            Some((Moment::While, other)) => self.tables.take_over(key, || {
                other();
                does()
            }),
            None => self.tables.take_over(key, does),
        }
    }

    fn forget(&self, key: &FlowKey) {
        self.tables.forget(key);
    }

    fn fragment(&self, key: &FragmentKey) -> Tuple {
        self.tables.fragment(key)
    }

    fn remember_fragment(&self, key: &FragmentKey, addresses: &Tuple) {
        self.tables.remember_fragment(key, addresses);
    }

    fn snat_ports(&self) -> (u16, u16) {
        self.tables.snat_ports()
    }

    fn now(&self) -> u32 {
        self.tables.now()
    }

    fn draft(&self, of: Draft) -> Option<&LiveFlow> {
        self.tables.draft(of)
    }

    fn announce(&self, key: &FlowKey, forward: &LiveFlow) {
        self.tables.announce(key, forward);
    }
}

/// A datagram of one of several clients, who share a source.
fn of_client(number: u32) -> Sent {
    datagram().with(|sent| sent.src.0 = CLIENT + number)
}

/// What a client's first datagram becomes while another processor does something.
fn begun_beside(tables: &Memory, sent: Sent, moment: Moment, other: &dyn Fn()) -> Translation {
    let bytes = sent.bytes();
    let beside = Beside { tables, other: Cell::new(Some((moment, other))) };
    let begun = begin(&bytes[..], &ip(&bytes), (0, false), (&Far, Towards::Service), &beside);
    assert!(beside.other.take().is_none(), "there was something to take over");
    begun
}

/// One port, which a flow has whose time is over.
fn with_a_dead_flow() -> Memory {
    let mut tables = tables();
    tables.config.nat_ports = [61_000, 61_000];
    let first = datagram().bytes();
    assert_eq!(whole_to_vip(&tables, &first, &Far).refusal, None);
    advance(&tables, 31);
    tables
}

/// Begins a client's flow; why it is refused.
fn begun(tables: &Memory, client: u32) -> Option<Refusal> {
    let bytes = of_client(client).bytes();
    begin(&bytes[..], &ip(&bytes), (0, false), (&Far, Towards::Service), tables).refusal
}

#[test]
fn of_two_flows_that_take_the_port_of_a_dead_one_over_at_once_one_has_it() {
    for (moment, refused) in [(Moment::Before, [true, false]), (Moment::While, [false, true])] {
        let tables = with_a_dead_flow();
        let other = Cell::new(None);
        let first = begun_beside(&tables, of_client(1), moment, &|| other.set(begun(&tables, 2)));
        let collided = [first.refusal, other.get()].map(|refusal| refusal == Some(Refusal::Collision));
        assert_eq!(collided, refused, "{moment:?}");
        let client = if refused[0] { 2 } else { 1 };
        let fate = whole_to_vip(&tables, &of_client(client).bytes(), &Far);
        let answered = back(&tables, answer(Ok(fate.rewrite), PROTO_UDP, 0));
        assert_eq!(
            answered,
            Some(tuple((VIP, 80), (CLIENT + client, 40_000))),
            "{moment:?}: so are its answers"
        );
    }
}

#[test]
fn a_flow_that_comes_to_life_while_its_port_is_taken_over_keeps_it() {
    let tables = with_a_dead_flow();
    let key = FlowKey::new(FIRST.to_be(), UPLINK.to_be(), 8080u16.to_be(), 61_000u16.to_be(), PROTO_UDP);
    let entry = tables.unconfirmed(&key).expect("it is there");
    let comes_to_life = || entry.seen.set(tables.now());
    let begun = begun_beside(&tables, of_client(1), Moment::Before, &comes_to_life);
    assert_eq!(begun.refusal, Some(Refusal::Collision));
    assert!(tables.unconfirmed(&key).is_some_and(|entry| entry.dst.get() == CLIENT.to_be()));
}

#[test]
fn a_key_with_a_dead_entry_and_a_living_one_is_the_living_ones() {
    let tables = with_a_dead_flow();
    let key = FlowKey::new(FIRST.to_be(), UPLINK.to_be(), 8080u16.to_be(), 61_000u16.to_be(), PROTO_UDP);
    let dead = tables.unconfirmed(&key).expect("it is there").record();
    tables.enter_flow(&key, &LiveFlow::new(&dead), true);
    let living = FlowRecord { seen: tables.now(), dst: (CLIENT + 7).to_be(), ..dead };
    tables.enter_unconfirmed(&key, &LiveFlow::new(&living), true);
    assert_eq!(begun(&tables, 1), Some(Refusal::Collision));
    assert!(tables.unconfirmed(&key).is_some_and(|entry| entry.dst.get() == living.dst));
}
