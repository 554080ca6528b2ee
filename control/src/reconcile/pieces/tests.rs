use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        Egress, Encapsulation, FanSpec, Origin, SMALL_PATHS, UnderlaySpec, VETH_MTU, bridge_mac, inlet_names,
    },
    observed::{Adopted, Rule, XdpMode, XdpProgram},
    reconcile::Host,
};

const UPLINK: u32 = 2;
/// The program in front of `uplink-ingress`.
const EARLY: u32 = 77;
const BRIDGE: &str = "fan-250-0-28";

fn spec() -> FanSpec {
    FanSpec {
        overlay: "250.0.0.0/8".parse().unwrap(),
        underlay: UnderlaySpec::Device { name: "eth0".to_owned(), len: None },
        encapsulation: Encapsulation::Ipip,
        host_reserve: 1,
        egress: Egress::Masquerade,
        bridge: None,
        dhcp: true,
        dns: Vec::new(),
    }
}

/// A host as far as fans change it.
#[derive(Clone, Debug)]
struct Model {
    observed: ObservedHost,
    held: Pieces,
    next_index: u32,
}

impl Model {
    /// A host with an uplink of this address, and nothing of ours.
    fn fresh(address: [u8; 4]) -> Self {
        let eth0 = Link { index: UPLINK, name: "eth0".to_owned(), mtu: 1500, up: true, ..Link::default() };
        let connected =
            Route { destination: "172.30.0.0/16".parse().unwrap(), oif: Some(UPLINK), ..Route::default() };
        let observed = ObservedHost {
            links: vec![eth0],
            addresses: vec![Address { index: UPLINK, address: address.into(), prefix_len: 16 }],
            routes: vec![connected],
            rules: vec![Rule { priority: 32766, table: 254, selective: false, protocol: 2 }],
            standing: Vec::new(),
        };
        let mut held = Pieces::default();
        held.settings.insert(Setting::forwarding().path, "0".to_owned());
        Self { observed, held, next_index: 10 }
    }

    fn fan(&self) -> Fan {
        Host::of(&self.observed, &[]).resolve(&spec(), Origin::Manual).unwrap()
    }

    fn plan(&self) -> PiecePlan {
        plan(&self.fan(), &self.observed, &self.held).unwrap()
    }

    /// Brings the fan up.
    fn up(mut self) -> Self {
        let fan = self.fan();
        for op in self.plan().ops {
            self.apply(&fan, op);
        }
        self.observed.standing = crate::observed::standing(&self.observed.links, &self.held.entries);
        self
    }

    fn link(&mut self, name: &str) -> &mut Link {
        self.observed.links.iter_mut().find(|link| link.name == name).unwrap()
    }

    fn add(&mut self, link: Link) -> u32 {
        let index = self.next_index;
        self.next_index += 1;
        self.observed.links.push(Link { index, ..link });
        index
    }

    /// A device goes, and with it what hangs on it.
    fn remove(&mut self, name: &str) {
        let index = self.link(name).index;
        self.observed.links.retain(|link| link.index != index && link.peer != Some(index));
        self.observed.addresses.retain(|address| address.index != index);
        self.held.routes.retain(|route| route.oif != Some(index));
        self.held.small_paths.retain(|route| route.oif != Some(index));
        self.observed
            .links
            .iter_mut()
            .filter(|link| link.master == Some(index))
            .for_each(|link| link.master = None);
        self.held.settings.retain(|path, _| path.split('/').nth(3) != Some(name));
    }

    fn programs(&mut self) -> &mut Programs {
        self.held.programs.as_mut().expect("programs are loaded before anything asks for them")
    }

    fn apply(&mut self, fan: &Fan, op: PieceOp) {
        match op {
            PieceOp::Retire(Standing { mark, adopted, .. }) => {
                self.link(&mark.bridge()).alias = Some(mark.to_alias());
                self.remember(Entry { mark, adopted });
            }
            PieceOp::Remember(entry) => self.remember(entry),
            PieceOp::Load => self.held.programs = Some(Programs::default()),
            PieceOp::Forward => self.set(Setting::forwarding()),
            PieceOp::DeleteHelper(index) => {
                assert_eq!(self.link(HELPER[0]).index, index);
                self.remove(HELPER[0]);
            }
            PieceOp::CreateHelper => self.create_helper(),
            PieceOp::CreateBridge { name, mac, mtu } => {
                let kind = Some("bridge".to_owned());
                self.add(Link { name, mac, mtu, kind, ..Link::default() });
            }
            PieceOp::Link(name, change) => self.change(&name, change),
            PieceOp::Address { device, address, prefix_len } => {
                let index = self.link(&device).index;
                self.observed.addresses.push(Address { index, address, prefix_len });
            }
            PieceOp::OwnSetting(setting) | PieceOp::Setting(setting) => {
                let device = setting.path.split('/').nth(3).unwrap().to_owned();
                self.link(&device);
                self.set(setting);
            }
            PieceOp::KnowHelper => {
                let index = self.link(HELPER[0]).index;
                self.programs().helper = (index, HELPER_MACS[0]);
            }
            PieceOp::Publish(record) => {
                let bridge = self.link(&fan.bridge).index;
                let [inlet, outlet] = inlet_names(&fan.bridge);
                let inlet = if record.inlet == 0 { 0 } else { self.link(&inlet).index };
                let outlet = if record.outlet == 0 { 0 } else { self.link(&outlet).index };
                self.programs().fans = vec![FanRecord { bridge, inlet, outlet, ..record }];
            }
            PieceOp::Attach(hook, name) => {
                let index = self.link(&name).index;
                self.programs().hooks.push((hook, index));
            }
            PieceOp::KnowUplink(index, mac) => {
                let macs = &mut self.programs().macs;
                macs.retain(|(device, _)| *device != index);
                macs.push((index, mac));
            }
            PieceOp::AttachEarly { name, index, modes } => self.attach_early(&name, index, modes),
            PieceOp::DetachEarly { name, index } => self.detach_early(&name, index),
            PieceOp::Port(PortOp::Attach { ifindex, .. }) => self.programs().ports.push(ifindex),
            PieceOp::Port(PortOp::Detach { ifindex }) => {
                self.programs().ports.retain(|&port| port != ifindex);
            }
            PieceOp::Route(route) => self.set_route(route),
            PieceOp::Dhcp => self.held.serves_dhcp = true,
            other => self.apply_ways(other),
        }
    }

    /// Inlets, the helper device's addresses, and the table of small paths.
    fn apply_ways(&mut self, op: PieceOp) {
        match op {
            PieceOp::LoneAddress(address, prefix_len) => {
                let index = self.link(HELPER[0]).index;
                self.observed.addresses.push(Address { index, address, prefix_len });
            }
            PieceOp::TakeAddress(address) => self.observed.addresses.retain(|own| *own != address),
            PieceOp::DeleteInlet(index) => self.observed.links.retain(|link| link.index != index),
            PieceOp::CreateInlet { names } => self.create_inlet(&names),
            PieceOp::JoinInlet { device, bridge } => {
                let bridge = self.link(&bridge).index;
                self.link(&device).master = Some(bridge);
            }
            PieceOp::SmallPath(route) => {
                let oif = (!route.rejects).then(|| self.link(HELPER[0]).index);
                self.held.small_paths.retain(|other| other.destination != route.destination);
                self.held.small_paths.push(Route { oif, ..route });
            }
            PieceOp::Rule => self.observed.rules.push(Rule {
                priority: SMALL_PATHS,
                table: SMALL_PATHS,
                selective: true,
                protocol: ROUTE_PROTOCOL,
            }),
            other => panic!("{other:?}"),
        }
    }

    /// The model's driver runs none; its kernel runs it for any.
    fn attach_early(&mut self, name: &str, index: u32, modes: Modes) {
        let runs_itself = self.link(name).is_hardware();
        let mode = modes.iter().copied().find(|&mode| runs_itself || mode == XdpMode::Generic);
        let Some(mode) = mode else { return self.programs().refused.push(index) };
        self.link(name).xdp = vec![XdpProgram { mode, id: EARLY }];
        self.programs().hooks.push((Hook::UplinkXdp, index));
        self.programs().early = vec![(index, EARLY)];
    }

    fn detach_early(&mut self, name: &str, index: u32) {
        self.link(name).xdp.clear();
        let programs = self.programs();
        programs.hooks.retain(|&hook| hook != (Hook::UplinkXdp, index));
        programs.macs.retain(|(device, _)| *device != index);
        programs.early.clear();
    }

    fn create_helper(&mut self) {
        let end = |side: usize| Link {
            name: HELPER[side].to_owned(),
            mac: HELPER_MACS[side],
            mtu: VETH_MTU,
            kind: Some("veth".to_owned()),
            up: side == 0,
            ..Link::default()
        };
        let near = self.add(end(0));
        let far = self.add(Link { peer: Some(near), ..end(1) });
        self.link(HELPER[0]).peer = Some(far);
    }

    fn create_inlet(&mut self, names: &[String; 2]) {
        for (name, up) in names.iter().zip([true, false]) {
            let kind = Some("veth".to_owned());
            self.add(Link { name: name.clone(), mtu: VETH_MTU, kind, up, ..Link::default() });
        }
    }

    fn change(&mut self, name: &str, change: LinkChange) {
        let link = self.link(name);
        match change {
            LinkChange::Alias(alias) => link.alias = Some(alias),
            LinkChange::Mac(mac) => link.mac = mac,
            LinkChange::Mtu(mtu) | LinkChange::HoldMtu(mtu) => link.mtu = mtu,
            LinkChange::Up => link.up = true,
            LinkChange::NoArp => link.noarp = true,
            LinkChange::Segments => link.gso_segments = 1,
        }
    }

    fn set_route(&mut self, route: Route) {
        let oif = Some(self.link(HELPER[0]).index);
        let source = route.prefsrc.unwrap();
        let has_source = self.observed.addresses.iter().any(|own| own.address == source);
        assert!(has_source, "the kernel refuses a route from an address that it does not have");
        self.held.routes = vec![Route { oif, ..route }];
    }

    fn set(&mut self, Setting { path, value }: Setting) {
        self.held.settings.insert(path, value.to_owned());
    }

    fn remember(&mut self, entry: Entry) {
        self.held.entries.retain(|other| other.mark.bridge() != entry.mark.bridge());
        self.held.entries.push(entry);
    }
}

fn change(name: &str, change: LinkChange) -> PieceOp {
    PieceOp::Link(name.to_owned(), change)
}

#[test]
fn a_fan_is_remembered_before_anything_is_made_and_published_before_packets_are_led_to_it() {
    let model = Model::fresh([172, 30, 0, 28]);
    let ops = model.plan().ops;
    let place = |wanted: fn(&PieceOp) -> bool| ops.iter().position(wanted).expect("it is planned");
    let order = [
        place(|op| matches!(op, PieceOp::Remember(_))),
        place(|op| matches!(op, PieceOp::Load)),
        place(|op| matches!(op, PieceOp::Forward)),
        place(|op| matches!(op, PieceOp::CreateHelper)),
        place(|op| matches!(op, PieceOp::KnowHelper)),
        place(|op| matches!(op, PieceOp::CreateBridge { .. })),
        place(|op| matches!(op, PieceOp::Address { .. })),
        place(|op| matches!(op, PieceOp::Publish(_))),
        place(|op| matches!(op, PieceOp::Attach(..))),
        place(|op| matches!(op, PieceOp::Route(_))),
        place(|op| matches!(op, PieceOp::Dhcp)),
    ];
    assert!(order.is_sorted(), "{ops:#?}");
    assert_eq!(order[0], 0);
}

#[test]
fn a_fan_that_is_up_needs_nothing() {
    assert_eq!(Model::fresh([172, 30, 0, 28]).up().plan().ops, []);
}

#[test]
fn a_piece_that_was_changed_is_put_right_and_no_other() {
    let model = Model::fresh([172, 30, 0, 28]).up();
    let damaged = |damage: fn(&mut Model)| {
        let mut model = model.clone();
        damage(&mut model);
        model.plan().ops
    };
    assert_eq!(damaged(|model| model.link(BRIDGE).mtu = 9000), [change(BRIDGE, LinkChange::Mtu(1480))]);
    assert_eq!(damaged(|model| model.link(BRIDGE).up = false), [change(BRIDGE, LinkChange::Up)]);
    assert_eq!(damaged(|model| model.link(HELPER[0]).noarp = false), [change(HELPER[0], LinkChange::NoArp)]);
    assert!(matches!(*damaged(|model| model.held.routes.clear()), [PieceOp::Route(_)]));
    assert!(matches!(*damaged(|model| model.programs().fans.clear()), [PieceOp::Publish(_)]));
    let path = format!("net/ipv4/conf/{BRIDGE}/proxy_arp");
    let setting = PieceOp::OwnSetting(Setting::new(&path, "1"));
    assert_eq!(
        damaged(|model| model.set(Setting::new("net/ipv4/conf/fan-250-0-28/proxy_arp", "0"))),
        [setting]
    );
}

/// A fan that is up on an uplink of this bus, with this asked for.
fn asked(uplink_hook: UplinkHook, bus: Option<&str>) -> Model {
    let mut model = Model::fresh([172, 30, 0, 28]);
    model.held.uplink_hook = uplink_hook;
    model.link("eth0").bus = bus.map(str::to_owned);
    let model = model.up();
    assert_eq!(model.plan().ops, []);
    model
}

fn mode(model: &Model) -> Option<XdpMode> {
    model.observed.link("eth0").and_then(|link| link.xdp.first()).map(|program| program.mode)
}

#[test]
fn xdp_comes_to_an_uplink_as_it_is_asked_for_and_goes_again() {
    assert_eq!(mode(&asked(UplinkHook::Tc, Some("pci"))), None);
    assert_eq!(mode(&asked(UplinkHook::Auto, None)), None);
    assert_eq!(mode(&asked(UplinkHook::Auto, Some("pci"))), Some(XdpMode::Native));
    let mut model = asked(UplinkHook::Xdp, None);
    assert_eq!(mode(&model), Some(XdpMode::Generic));
    model.held.uplink_hook = UplinkHook::Tc;
    assert_eq!(model.plan().ops, [PieceOp::DetachEarly { name: "eth0".to_owned(), index: UPLINK }]);
    assert_eq!(mode(&model.up()), None);
}

#[test]
fn xdp_that_the_kernel_runs_is_not_what_auto_means() {
    let mut model = asked(UplinkHook::Xdp, Some("pci"));
    model.link("eth0").xdp[0].mode = XdpMode::Generic;
    model.held.uplink_hook = UplinkHook::Auto;
    let model = model.up();
    assert_eq!(mode(&model), Some(XdpMode::Native));
    assert_eq!(model.plan().ops, []);
}

#[test]
fn xdp_learns_another_address_of_its_device_before_anything_else() {
    let mut model = asked(UplinkHook::Xdp, None);
    model.link("eth0").mac = [2; 6];
    assert_eq!(model.plan().ops, [PieceOp::KnowUplink(UPLINK, [2; 6])]);
    model.programs().hooks.retain(|(hook, _)| *hook != Hook::UplinkXdp);
    let [PieceOp::KnowUplink(..), PieceOp::AttachEarly { .. }] = model.plan().ops[..] else {
        panic!("{:?}", model.plan().ops)
    };
}

#[test]
fn xdp_that_a_device_refused_is_not_tried_again_and_another_owners_is_left_alone() {
    let mut model = asked(UplinkHook::Tc, None);
    model.held.uplink_hook = UplinkHook::Xdp;
    model.programs().refused.push(UPLINK);
    assert_eq!(model.plan().ops, []);
    model.programs().refused.clear();
    model.link("eth0").xdp = vec![XdpProgram { mode: XdpMode::Native, id: EARLY + 1 }];
    assert_eq!(model.plan().ops, []);
}

#[test]
fn a_setting_that_the_kernel_lacks_is_not_asked_for_again() {
    let mut model = Model::fresh([172, 30, 0, 28]).up();
    model.held.settings.retain(|path, _| !path.contains("ipv6"));
    assert_eq!(model.plan().ops, []);
}

#[test]
fn a_fan_keeps_the_bridge_of_a_former_address_for_its_containers() {
    let mut model = Model::fresh([172, 30, 0, 28]).up();
    model.observed.addresses[0].address = [172, 30, 0, 29].into();
    let plan = model.plan();
    let [PieceOp::Retire(former), PieceOp::Remember(entry), ..] = plan.ops.as_slice() else {
        panic!("{:#?}", plan.ops)
    };
    assert_eq!((former.mark.bridge().as_str(), former.mark.stale), (BRIDGE, true));
    assert_eq!((entry.mark.bridge(), entry.mark.stale), ("fan-250-0-29".to_owned(), false));
    assert_eq!(model.up().plan().ops, []);
}

#[test]
fn an_inlet_that_filters_bar_and_one_of_an_adopted_bridge_are_not_known_to_the_programs() {
    let published = |model: &Model| {
        let record = model.plan().ops.into_iter().find_map(|op| match op {
            PieceOp::Publish(record) => Some((record.inlet, record.outlet)),
            _ => None,
        });
        record.expect("the fan is published")
    };
    let to_come = PieceOp::INLET_TO_COME;
    let mut model = Model::fresh([172, 30, 0, 28]);
    assert_eq!(published(&model), (to_come, to_come));
    model.held.bars_inlet = true;
    assert_eq!(published(&model), (0, to_come), "what leaves by it goes to the host");
    model.held.bars_inlet = false;
    let kind = Some("bridge".to_owned());
    model.add(Link { name: BRIDGE.to_owned(), mac: [2; 6], mtu: 1480, kind, up: true, ..Link::default() });
    assert_eq!(published(&model), (0, 0));
}

#[test]
fn what_is_not_ours_is_left_alone_and_nothing_is_made_beside_it() {
    let fresh = Model::fresh([172, 30, 0, 28]);
    let refused = |name: &str| {
        let mut model = fresh.clone();
        model.add(Link { name: name.to_owned(), ..Link::default() });
        plan(&model.fan(), &model.observed, &model.held).unwrap_err().to_string()
    };
    for name in HELPER {
        assert_eq!(
            refused(name),
            format!("interface {name} exists and is not fanlight's; rename or delete it")
        );
    }
    let mut other = fresh.clone().up();
    let spec = &mut other.observed.standing[0].mark.spec;
    (spec.overlay, spec.bridge) = ("251.0.0.0/8".parse().unwrap(), Some(BRIDGE.to_owned()));
    let error = plan(&fresh.fan(), &other.observed, &other.held).unwrap_err();
    let overlay = "251.0.0.0/8".parse().unwrap();
    assert_eq!(error, PieceError::BridgeTaken { name: BRIDGE.to_owned(), overlay });
}

#[test]
fn an_adopted_bridge_keeps_its_mac_address_and_what_it_was_like_is_remembered() {
    let mut model = Model::fresh([172, 30, 0, 28]);
    let kind = Some("bridge".to_owned());
    model.add(Link { name: BRIDGE.to_owned(), mac: [2; 6], mtu: 1400, kind, up: true, ..Link::default() });
    let ops = model.plan().ops;
    let remembered: Vec<Option<Adopted>> = ops
        .iter()
        .filter_map(|op| match op {
            PieceOp::Remember(entry) => Some(entry.adopted),
            _ => None,
        })
        .collect();
    let adopted = |mtu| Some(Adopted { mtu, had_address: false });
    assert_eq!(remembered, [adopted(None), adopted(Some(1400))]);
    assert!(ops.contains(&change(BRIDGE, LinkChange::HoldMtu(1400))), "{ops:#?}");
    let is_ours = |op: &PieceOp| matches!(op, PieceOp::Link(name, LinkChange::Mac(_) | LinkChange::Alias(_)) if name == BRIDGE);
    assert!(!ops.iter().any(is_ours), "{ops:#?}");
    assert_eq!(model.up().plan().ops, []);
}

/// What others can do to a fan's pieces.
fn damages() -> [fn(&mut Model); 20] {
    [
        |model| model.remove(BRIDGE),
        |model| model.remove(HELPER[0]),
        // One end alone.
        |model| {
            let far = model.link(HELPER[1]).index;
            model.observed.links.retain(|link| link.index != far);
            model.link(HELPER[0]).peer = None;
        },
        |model| model.link(BRIDGE).mac = [2; 6],
        |model| model.link(BRIDGE).mtu = 1300,
        |model| model.link(BRIDGE).up = false,
        |model| model.link(HELPER[0]).mac = [4; 6],
        |model| model.link(HELPER[1]).up = false,
        |model| model.observed.addresses.retain(|address| address.index == UPLINK),
        |model| model.held.routes.clear(),
        |model| model.held.serves_dhcp = false,
        |model| model.held.entries.clear(),
        |model| model.held.programs = None,
        |model| model.held.settings.values_mut().for_each(|value| *value = "7".to_owned()),
        |model| model.link("eth0").mtu = 9000,
        |model| model.link(&inlet_names(BRIDGE)[1]).gso_segments = 65_535,
        |model| model.remove(&inlet_names(BRIDGE)[1]),
        |model| model.observed.rules.retain(|rule| !rule.is_ours()),
        |model| model.held.small_paths.clear(),
        |model| {
            let address = [10, 0, 0, 1].into();
            let near = model.observed.link(HELPER[0]).map(|link| link.index);
            model.observed.addresses.extend(near.map(|index| Address { index, address, prefix_len: 8 }));
        },
    ]
}

proptest! {
    #[test]
    fn whatever_was_damaged_one_plan_puts_it_right(damaged in proptest::collection::btree_set(0_usize..20, 0..20)) {
        let mut model = Model::fresh([172, 30, 0, 28]).up();
        for &number in &damaged {
            let needs_bridge = (3..6).contains(&number) && damaged.contains(&0);
            let needs_helper = [2, 6, 7].contains(&number) && damaged.contains(&1);
            let needs_far = number == 7 && damaged.contains(&2);
            // A helper without its mark and its other end is nobody's.
            let hides = number == 6 && damaged.contains(&2);
            if !needs_bridge && !needs_helper && !needs_far && !hides {
                damages()[number](&mut model);
            }
        }
        model.observed.standing = crate::observed::standing(&model.observed.links, &model.held.entries);
        let model = model.up();
        prop_assert_eq!(model.plan().ops, []);
        let bridge = model.observed.link(BRIDGE).unwrap();
        let mtu = model.fan().mtu;
        prop_assert_eq!((bridge.mac, bridge.mtu), (bridge_mac([172, 30, 0, 28].into()), mtu));
    }
}
