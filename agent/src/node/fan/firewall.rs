//! Our own nftables table, as one function of the fans that are up.
//!
//! Packets between two overlay addresses that the stack forwards, and those to endpoints that the programs have translated, are
//! not tracked, so that no foreign translation and no foreign state touches them; the host's own flows and egress stay
//! tracked, and so does what the programs hand over with a mark: the rest of flows that connection tracking translates, which
//! the programs know by a mark from here.

use std::{fmt::Write as _, io, net::Ipv4Addr};

use control::{
    model::{Egress, PortRange},
    observed::Mark,
};
use dataplane_common::abi::TRACKED_MARK;
use ipnet::Ipv4Net;

use super::{HELPER, error::Fault};
use crate::kernel::{nft, nft_rules::Ruleset};

/// Name of the table.
const TABLE: &str = "fanlight";
/// A set of addresses and ports, as a packet has them and as those have that it answers.
const ANSWERS: &str = "answers";
const ANSWER: &str = "ip saddr . ip daddr . meta l4proto . th sport . th dport";
const REQUEST: &str = "ip daddr . ip saddr . meta l4proto . th dport . th sport";

/// Makes the table what these fans need. Whether it had to be written is returned.
pub(super) fn ensure(fans: &[&Mark], nat_ports: PortRange) -> Result<bool, Fault> {
    let (body, stamp) = wanted(fans, nat_ports);
    if is_whole(&body, &stamp)? {
        return Ok(false);
    }
    nft::apply(&script(&body.replace("{stamp}", &stamp)))?;
    Ok(true)
}

/// Whether the table is there and whole.
pub(super) fn is_in_place(fans: &[&Mark], nat_ports: PortRange) -> Result<bool, Fault> {
    let (body, stamp) = wanted(fans, nat_ports);
    is_whole(&body, &stamp)
}

/// Removes the table; none there is fine.
pub(super) fn remove() -> Result<(), Fault> {
    if ask(false, |ruleset| ruleset.has_table(TABLE))? {
        nft::apply(&format!("delete table ip {TABLE}\n"))?;
    }
    Ok(())
}

/// The kernel is asked and not `nft`: a program that hangs keeps neither `status` nor a pass over whole fans waiting.
fn ask<T>(without: T, question: impl FnOnce(&Ruleset) -> io::Result<T>) -> Result<T, Fault> {
    match Ruleset::open().and_then(|ruleset| question(&ruleset)) {
        // It has no nf_tables.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(without),
        other => other.map_err(Fault::Rules),
    }
}

fn is_whole(body: &str, stamp: &str) -> Result<bool, Fault> {
    let comments = ask(Vec::new(), |ruleset| ruleset.comments(TABLE))?;
    Ok(is_intact(&comments, stamp, body.matches("{stamp}").count()))
}

/// The chains, and the stamp that their rules carry.
fn wanted(fans: &[&Mark], nat_ports: PortRange) -> (String, String) {
    let body = body(fans, nat_ports);
    let stamp = stamp(&body);
    (body, stamp)
}

/// One transaction that leaves exactly this table.
fn script(body: &str) -> String {
    format!("table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n{body}}}\n")
}

/// The chains. Every rule carries a stamp, by which a table of other fans or of another version is told. The order in
/// which the fans are given makes no difference: it changes from one look at the host to the next.
fn body(fans: &[&Mark], nat_ports: PortRange) -> String {
    let mut fans = fans.to_vec();
    fans.sort_by_key(|fan| (fan.overlay(), fan.address));
    let overlays = set(fans.iter().map(|fan| fan.overlay()));
    let mut ours: Vec<String> = fans.iter().map(|fan| format!("\"{}\"", fan.bridge())).collect();
    ours.push(format!("\"{HELPER}\""));
    let ours = ours.join(", ");
    let (mut raw, mut own, mut nat, mut filter, mut seen, mut marks) = Default::default();
    let (is_marked, mark, unmark) = (
        format!("meta mark & {TRACKED_MARK:#x} != 0"),
        format!("meta mark set meta mark | {TRACKED_MARK:#x}"),
        format!("meta mark set meta mark & {:#x}", !TRACKED_MARK),
    );
    rule(&mut raw, &format!("{is_marked} {unmark} accept"));
    rule(&mut raw, &format!("{ANSWER} @{ANSWERS} accept"));
    let translated = format!("ip daddr {{ {overlays} }} ct direction original ct status snat,dnat");
    rule(&mut marks, &format!("{translated} update @{ANSWERS} {{ {REQUEST} }}"));
    rule(&mut marks, &format!("{translated} {mark} accept"));
    rule(&mut marks, &format!("{is_marked} {unmark}"));
    for fan in &fans {
        let (overlay, slice, gateway) = (fan.overlay(), fan.slice(), fan.gateway());
        // Packets that stay in the bridge meet the chains of iptables where a container runtime asks for that
        // (bridge-nf-call-iptables): what it translated has to be translated back.
        let bridge = fan.bridge();
        rule(&mut raw, &format!("iifname \"{bridge}\" ip saddr {slice} ip daddr {slice} accept"));
        // They do so before the bridge's own program, which has to leave what is translated to the stack.
        let of_bridge = format!("iifname \"{bridge}\" ip daddr {overlay} ip daddr != {gateway}");
        rule(&mut seen, &format!("{of_bridge} ct status snat,dnat {mark}"));
        rule(&mut raw, &format!("ip saddr {overlay} ip daddr {overlay} ip daddr != {gateway} notrack"));
        // What the programs have translated, for filters of the host's to see it: connection tracking sees one direction.
        rule(&mut raw, &format!("iifname \"{HELPER}\" ip daddr {slice} ip daddr != {gateway} notrack"));
        // A container runtime on an adopted bridge would give the host's own packets another source.
        rule(&mut own, &keep(gateway));
        // A process's packet that was translated has the source that led to where it went before.
        let address = fan.address;
        rule(&mut own, &format!("ip saddr {address} oifname \"{HELPER}\" ct status dnat snat to {gateway}"));
        let leaves = format!("ip saddr {slice} ip daddr != {{ {overlays} }} oifname != {{ {ours} }}");
        match fan.spec.egress {
            Egress::Masquerade => masquerade(&mut nat, &leaves, nat_ports),
            Egress::Drop => rule(&mut filter, &format!("{leaves} drop")),
            Egress::Route => {}
        }
    }
    let chains = [
        // Before the kernel reassembles for connection tracking (priority -400): it would wait for fragments that
        // a program has sent already.
        ("prerouting", "filter hook prerouting priority raw - 150", raw),
        ("seen", "filter hook prerouting priority dstnat + 10", seen),
        ("host", "nat hook postrouting priority srcnat - 10", own),
        ("postrouting", "nat hook postrouting priority srcnat", nat),
        ("forward", "filter hook forward priority filter", filter),
        // Behind all that translates.
        ("marks", "filter hook postrouting priority srcnat + 50", marks),
    ];
    // A chain without rules would still cost every packet of the host, and one of type nat its tracking.
    chains.iter().filter(|(_, _, rules)| !rules.is_empty()).fold(
        set_of_answers(),
        |mut text, (name, kind, rules): &(_, _, String)| {
            // Writing to a string can't fail.
            let _ = write!(text, "\tchain {name} {{\n\t\ttype {kind}; policy accept;\n{rules}\t}}\n");
            text
        },
    )
}

/// What answers flows that connection tracking translates, for frames that meet these chains before any program.
fn set_of_answers() -> String {
    format!(
        "\tset {ANSWERS} {{\n\t\ttype ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service\n\
         \t\tsize 65535\n\t\tflags dynamic,timeout\n\t\ttimeout 1h\n\t}}\n"
    )
}

/// The programs give the ports of `nat_ports` to sources of their own, of which connection tracking knows nothing: the kernel
/// gives others. In a range it keeps the port that a packet has, if that is free. Privileged ones stay privileged by
/// themselves.
fn masquerade(chain: &mut String, leaves: &str, nat_ports: PortRange) {
    let others = nat_ports.others();
    let widest = others.iter().copied().max_by_key(|range| range.1 - range.0);
    let pairs = others.iter().map(|&range| (range, range)).chain(widest.map(|widest| (nat_ports, widest)));
    for (from, to) in pairs {
        let (from, to) = (ports(from), ports(to));
        rule(chain, &format!("{leaves} meta l4proto {{ tcp, udp }} th sport {from} masquerade to :{to}"));
    }
    rule(chain, &format!("{leaves} masquerade"));
}

/// A range as nft takes it.
fn ports(PortRange(first, last): PortRange) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn rule(chain: &mut String, rule: &str) {
    let _ = writeln!(chain, "\t\t{rule} comment \"{{stamp}}\"");
}

/// A translation to the address itself: the first translation of a flow is the only one.
fn keep(gateway: Ipv4Addr) -> String {
    format!("ip saddr {gateway} oifname \"{HELPER}\" snat to {gateway}")
}

fn set(networks: impl Iterator<Item = Ipv4Net>) -> String {
    networks.map(|network| network.to_string()).collect::<Vec<_>>().join(", ")
}

fn stamp(body: &str) -> String {
    format!("fanlight {:016x}", control::model::fnv1a(body))
}

fn is_intact(comments: &[Option<String>], stamp: &str, rules: usize) -> bool {
    comments.len() == rules && comments.iter().all(|found| found.as_deref() == Some(stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(overlay: &str, egress: Egress) -> Mark {
        let mut mark = Mark::example();
        mark.spec.overlay = overlay.parse().unwrap();
        mark.spec.egress = egress;
        mark
    }

    #[test]
    fn overlay_traffic_is_untracked_and_only_what_leaves_the_overlays_is_masqueraded() {
        let (one, two) = (mark("250.0.0.0/8", Egress::Masquerade), mark("251.0.0.0/8", Egress::Drop));
        let body = body(&[&one, &two], PortRange::default());
        for rule in [
            "ip saddr 250.0.0.0/8 ip daddr 250.0.0.0/8 ip daddr != 250.0.28.1 notrack",
            "ip saddr 250.0.28.0/24 ip daddr != { 250.0.0.0/8, 251.0.0.0/8 } oifname != { \"fan-250-0-28\", \
             \"fan-251-0-28\", \"fanlight0\" } masquerade",
            "ip saddr 251.0.28.0/24 ip daddr != { 250.0.0.0/8, 251.0.0.0/8 } oifname != { \"fan-250-0-28\", \
             \"fan-251-0-28\", \"fanlight0\" } drop",
        ] {
            assert!(body.contains(rule), "{rule}\n{body}");
        }
    }

    #[test]
    fn the_same_fans_in_another_order_need_the_same_table() {
        let (one, two) = (mark("250.0.0.0/8", Egress::Masquerade), mark("251.0.0.0/8", Egress::Drop));
        assert_eq!(body(&[&one, &two], PortRange::default()), body(&[&two, &one], PortRange::default()));
    }

    #[test]
    fn masquerading_keeps_off_the_ports_that_the_programs_give() {
        let fan = mark("250.0.0.0/8", Egress::Masquerade);
        let rules = |first, last| {
            let body = body(&[&fan], PortRange(first, last));
            let masquerades = body.lines().filter(|line| line.contains("masquerade"));
            let rules = masquerades.filter_map(|line| Some(line.split_once("th sport ")?.1.to_owned()));
            rules.map(|rule| rule.split(" comment").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            rules(61_000, 65_535),
            ["1024-60999 masquerade to :1024-60999", "61000-65535 masquerade to :1024-60999"]
        );
        assert_eq!(
            rules(20_000, 65_534),
            [
                "1024-19999 masquerade to :1024-19999",
                "65535 masquerade to :65535",
                "20000-65534 masquerade to :1024-19999"
            ]
        );
        assert_eq!(rules(1_024, 65_535), [""; 0]);
    }

    #[test]
    fn egress_by_route_leaves_packets_alone() {
        let fan = mark("250.0.0.0/8", Egress::Route);
        let body = body(&[&fan], PortRange::default());
        assert!(!body.contains("masquerade") && !body.contains("drop"), "{body}");
    }

    #[test]
    fn a_table_is_intact_only_with_all_rules_and_their_stamp() {
        let rule = |comment: &str| Some(comment.to_owned());
        assert!(is_intact(&[rule("s"), rule("s")], "s", 2));
        assert!(!is_intact(&[rule("s")], "s", 2));
        assert!(!is_intact(&[rule("s"), rule("t")], "s", 2));
        assert!(!is_intact(&[rule("s"), None], "s", 2));
    }
}
