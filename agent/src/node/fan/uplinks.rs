//! Where tunnel packets are judged at the uplinks, and why there.

use control::{
    model::UplinkHook,
    observed::{Link, XdpMode},
    reconcile::{self, WithoutXdp},
};
use dataplane_common::outcome::Hook;
use serde::Serialize;

use crate::kernel::bpf::{Attachment, Datapath, ForeignProgram, Result};

/// An uplink's way, with the keys of `fanlight status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UplinkWay {
    /// The uplink.
    pub device: String,
    /// What is asked for.
    pub asked: UplinkHook,
    /// `xdp` where tunnel packets are refused before the kernel makes anything of them, else `tc`.
    pub hook: &'static str,
    /// Who runs XDP.
    pub mode: Option<XdpMode>,
    /// Why it is `tc`.
    pub why: Option<String>,
}

/// The ways of uplinks, by their indices.
///
/// # Errors
/// The kernel refuses to tell.
pub fn ways(datapath: &Datapath, links: &[Link], uplinks: &[u32]) -> Result<Vec<UplinkWay>> {
    let attachments = datapath.attachments()?;
    let asked = datapath.uplinks().asked().unwrap_or_default();
    let uplinks = links.iter().filter(|link| uplinks.contains(&link.index));
    Ok(uplinks.map(|uplink| way(asked, uplink, links, &attachments)).collect())
}

fn way(asked: UplinkHook, uplink: &Link, links: &[Link], attachments: &[Attachment]) -> UplinkWay {
    let device = uplink.name.clone();
    let ours = ours(uplink, attachments);
    if let Some(program) = uplink.xdp.iter().find(|program| ours.contains(&program.id)) {
        return UplinkWay { device, asked, hook: "xdp", mode: Some(program.mode), why: None };
    }
    let why = match reconcile::early(asked, uplink, links, &ours) {
        Ok(_) if asked == UplinkHook::Auto => "its driver runs no XDP program".to_owned(),
        Ok(_) => "no XDP program runs on it".to_owned(),
        Err(WithoutXdp::Unasked) => "as asked".to_owned(),
        Err(WithoutXdp::Virtual) => "a virtual device, where XDP costs segmentation offload".to_owned(),
        Err(WithoutXdp::CarriesVlans) => "it carries VLAN devices, whose tags XDP may not see".to_owned(),
        Err(WithoutXdp::Headerless) => "it has no Ethernet headers".to_owned(),
        Err(WithoutXdp::Foreign(id)) => {
            let ForeignProgram { name, .. } = ForeignProgram::by_id(id);
            format!("another owner's XDP program is on it ({name}, id {id})")
        }
    };
    UplinkWay { device, asked, hook: "tc", mode: None, why: Some(why) }
}

/// Our programs in front of `uplink-ingress` on a device.
fn ours(uplink: &Link, attachments: &[Attachment]) -> Vec<u32> {
    let on_it = |own: &&Attachment| own.hook == Hook::UplinkXdp && own.ifindex == uplink.index;
    attachments.iter().filter(on_it).map(|own| own.program_id).collect()
}

/// Uplinks that go by tc alone although XDP is asked for, a line each with what to do.
///
/// # Errors
/// The kernel refuses to tell.
pub fn hindered(datapath: &Datapath, links: &[Link], uplinks: &[u32]) -> Result<Vec<String>> {
    let refusals = datapath.refusals();
    let ways = ways(datapath, links, uplinks)?;
    let hindered = ways.iter().filter(|way| way.asked == UplinkHook::Xdp && way.hook == "tc");
    Ok(hindered.map(|way| reason(way, links, &refusals)).collect())
}

fn reason(way: &UplinkWay, links: &[Link], refusals: &[(u32, String)]) -> String {
    let device = &way.device;
    let index = links.iter().find(|link| link.name == *device).map(|link| link.index);
    let refusal = refusals.iter().find(|(ifindex, _)| Some(*ifindex) == index).map(|(_, why)| why);
    let is_foreign = links.iter().any(|link| link.name == *device && !link.xdp.is_empty());
    let remedy = if is_foreign {
        format!("remove it (`ip link set dev {device} xdp off`)")
    } else {
        "bring a fan up again, or reload, to try once more".to_owned()
    };
    let why = refusal.or(way.why.as_ref()).map_or("", String::as_str);
    format!(
        "uplink-xdp: {device}: {why}: tunnel packets are refused by tc alone; {remedy}, or set \"tc\" or \"auto\" in \
         datapath.uplink-hook"
    )
}

#[cfg(test)]
mod tests {
    use control::observed::XdpProgram;

    use super::*;

    fn uplink(xdp: Vec<XdpProgram>) -> Link {
        Link { index: 2, name: "eth0".to_owned(), kind: Some("veth".to_owned()), xdp, ..Link::default() }
    }

    #[test]
    fn an_uplinks_way_is_told_with_who_runs_it_or_why_it_is_not_run() {
        let own = Attachment { hook: Hook::UplinkXdp, ifindex: 2, program_id: 7 };
        let runs = uplink(vec![XdpProgram { mode: XdpMode::Generic, id: 7 }]);
        let way = |asked, uplink: &Link| way(asked, uplink, &[], &[own]);
        let xdp = way(UplinkHook::Xdp, &runs);
        assert_eq!((xdp.hook, xdp.mode, xdp.why), ("xdp", Some(XdpMode::Generic), None));
        let tc = way(UplinkHook::Auto, &uplink(Vec::new()));
        assert_eq!((tc.hook, tc.mode), ("tc", None));
        assert_eq!(tc.why.as_deref(), Some("a virtual device, where XDP costs segmentation offload"));
    }

    #[test]
    fn what_hinders_xdp_comes_with_what_to_do() {
        let eth0 = uplink(Vec::new());
        let tc = way(UplinkHook::Xdp, &eth0, &[], &[]);
        let refusals = [(2, "attaching uplink-xdp to eth0: out of memory".to_owned())];
        assert_eq!(
            reason(&tc, &[eth0], &refusals),
            "uplink-xdp: eth0: attaching uplink-xdp to eth0: out of memory: tunnel packets are refused by tc alone; bring a \
             fan up again, or reload, to try once more, or set \"tc\" or \"auto\" in datapath.uplink-hook"
        );
        let theirs = uplink(vec![XdpProgram { mode: XdpMode::Native, id: u32::MAX }]);
        let tc = way(UplinkHook::Xdp, &theirs, &[], &[]);
        let text = reason(&tc, &[theirs], &[]);
        assert!(text.contains("another owner's XDP program is on it"), "{text}");
        assert!(text.contains("`ip link set dev eth0 xdp off`"), "{text}");
    }
}
