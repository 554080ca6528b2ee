//! What runs on an uplink in front of `uplink-ingress`.

use crate::{
    model::UplinkHook,
    observed::{Link, XdpMode, XdpProgram},
};

/// Ways to run an XDP program, the best first.
pub type Modes = &'static [XdpMode];

/// Why an uplink has no XDP program of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutXdp {
    /// None is asked for.
    Unasked,
    /// It is no hardware: XDP would cost segmentation offload.
    Virtual,
    /// It carries VLAN devices, whose tags hardware takes out before XDP could see them.
    CarriesVlans,
    /// Its packets have no Ethernet header.
    Headerless,
    /// The program that it has is another owner's: its number.
    Foreign(u32),
}

/// How an uplink runs the program in front of `uplink-ingress`, or why it does not. `ours` are the numbers of our programs.
///
/// # Errors
/// It goes without.
pub fn early(asked: UplinkHook, uplink: &Link, links: &[Link], ours: &[u32]) -> Result<Modes, WithoutXdp> {
    let modes: Modes = match asked {
        UplinkHook::Tc => return Err(WithoutXdp::Unasked),
        UplinkHook::Xdp => &[XdpMode::Native, XdpMode::Generic],
        UplinkHook::Auto if !uplink.is_hardware() => return Err(WithoutXdp::Virtual),
        UplinkHook::Auto if carries_vlans(uplink, links) => return Err(WithoutXdp::CarriesVlans),
        UplinkHook::Auto => &[XdpMode::Native],
    };
    if uplink.headerless {
        return Err(WithoutXdp::Headerless);
    }
    let is_ours = |program: &&XdpProgram| ours.contains(&program.id);
    match uplink.xdp.iter().find(is_ours).or(uplink.xdp.first()) {
        Some(program) if !ours.contains(&program.id) => Err(WithoutXdp::Foreign(program.id)),
        _ => Ok(modes),
    }
}

fn carries_vlans(uplink: &Link, links: &[Link]) -> bool {
    let is_on_it = |link: &Link| link.peer == Some(uplink.index) && !link.peer_netns;
    links.iter().any(|link| link.kind.as_deref() == Some("vlan") && is_on_it(link))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Modes = &[XdpMode::Native, XdpMode::Generic];

    fn link(kind: Option<&str>, bus: Option<&str>) -> Link {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Link { index: 2, name: "eth0".to_owned(), kind: text(kind), bus: text(bus), ..Link::default() }
    }

    fn xdp(id: u32) -> Vec<XdpProgram> {
        vec![XdpProgram { mode: XdpMode::Native, id }]
    }

    #[test]
    fn auto_adds_xdp_on_hardware_alone_and_only_where_the_driver_runs_it() {
        let chosen = |uplink: &Link| early(UplinkHook::Auto, uplink, &[], &[]);
        assert_eq!(chosen(&link(None, Some("pci"))), Ok(&[XdpMode::Native][..]));
        for (kind, bus) in [
            (Some("veth"), None),
            (Some("vlan"), None),
            (Some("bond"), None),
            (None, None),
            (None, Some("virtio")),
            (None, Some("vmbus")),
        ] {
            assert_eq!(chosen(&link(kind, bus)), Err(WithoutXdp::Virtual), "{kind:?} {bus:?}");
        }
    }

    #[test]
    fn what_is_asked_for_holds_on_any_device() {
        for uplink in [link(None, Some("pci")), link(Some("veth"), None), link(Some("vlan"), None)] {
            assert_eq!(early(UplinkHook::Xdp, &uplink, &[], &[]), Ok(BOTH));
            assert_eq!(early(UplinkHook::Tc, &uplink, &[], &[]), Err(WithoutXdp::Unasked));
        }
    }

    #[test]
    fn auto_sees_to_it_that_hardware_hides_no_vlan() {
        let uplink = link(None, Some("pci"));
        let vlan = Link { index: 5, peer: Some(2), ..link(Some("vlan"), None) };
        let elsewhere = Link { peer_netns: true, ..vlan.clone() };
        let chosen = |others: &[Link]| early(UplinkHook::Auto, &uplink, others, &[]);
        assert_eq!(chosen(&[vlan]), Err(WithoutXdp::CarriesVlans));
        assert!(chosen(&[elsewhere]).is_ok());
    }

    #[test]
    fn another_owners_program_keeps_its_place_and_ours_does_not_bar_itself() {
        let uplink = Link { xdp: xdp(7), ..link(Some("veth"), None) };
        assert_eq!(early(UplinkHook::Xdp, &uplink, &[], &[8]), Err(WithoutXdp::Foreign(7)));
        assert_eq!(early(UplinkHook::Xdp, &uplink, &[], &[7]), Ok(BOTH));
        let both = Link { xdp: [xdp(9), xdp(7)].concat(), ..uplink };
        assert_eq!(early(UplinkHook::Xdp, &both, &[], &[7]), Ok(BOTH));
    }

    #[test]
    fn a_device_without_ethernet_headers_has_none() {
        let tunnel = Link { headerless: true, ..link(Some("tun"), None) };
        assert_eq!(early(UplinkHook::Xdp, &tunnel, &[], &[]), Err(WithoutXdp::Headerless));
    }
}
