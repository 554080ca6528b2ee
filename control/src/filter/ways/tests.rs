use super::*;
use crate::{
    filter::{Base, Rule, Set, Table, Verdict, crossings, dropped},
    observed::{Address, Standing},
};

/// A host with the usual fan on `eth0`.
fn observed() -> ObservedHost {
    let link = |index, name: &str| Link { index, name: name.to_owned(), up: true, ..Link::default() };
    let mark = Mark {
        spec: crate::model::FanSpec { dhcp: true, ..crate::model::FanSpec::example() },
        ..Mark::example()
    };
    ObservedHost {
        links: vec![link(2, "eth0"), link(3, "fan-250-0-28"), link(4, HELPER[0])],
        addresses: vec![Address { index: 2, address: mark.address, prefix_len: 16 }],
        standing: vec![Standing { mark, adopted: None, bridge: None }],
        ..ObservedHost::default()
    }
}

struct Nothing;

impl Table for Nothing {
    fn chain(&mut self, _name: &str) -> std::io::Result<Rc<[Rule]>> {
        Ok(Rc::default())
    }

    fn set(&mut self, _name: &str) -> std::io::Result<Rc<Set>> {
        Ok(Rc::default())
    }
}

/// The reasons where a hook's chain drops everything.
fn reasons(owner: &Owner) -> Vec<String> {
    let ways = ways(&observed());
    let (numbers, packets) = at(&ways, owner.hook);
    let found = dropped(&packets, &mut Nothing, Base { name: &owner.base, drops: true }).unwrap();
    let mut findings = Findings::default();
    findings.add(&ways, &numbers, owner, &found);
    findings.reasons(|_| Holds::Yes)
}

fn owner(family: &'static str, table: &str, base: &str, hook: Hook, iptables: Option<&'static str>) -> Owner {
    Owner { family, table: table.into(), base: base.into(), hook, iptables }
}

#[test]
fn advice_is_in_the_owners_words_with_one_device_a_side() {
    let told = reasons(&owner("ip", "filter", "FORWARD", Hook::Forward, Some("iptables-nft")));
    assert_eq!(
        told,
        ["forward-blocked: ip filter FORWARD drops forwarded packets; add \
          `iptables-nft -I FORWARD -i fanlight0 -o fan-250-0-28 -j ACCEPT` \
          `iptables-nft -I FORWARD -i fan-250-0-28 -o fanlight0 -j ACCEPT` \
          `iptables-nft -I FORWARD -i fanlight0 -o fanlight0 -j ACCEPT` \
          `iptables-nft -I FORWARD -i fan-250-0-28 -o eth0 -j ACCEPT` \
          `iptables-nft -I FORWARD -i eth0 -o fan-250-0-28 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`"]
    );
    let told = reasons(&owner("inet", "site", "forward", Hook::Forward, None)).remove(0);
    assert!(
        told.contains("`nft insert rule inet site forward iifname fanlight0 oifname fan-250-0-28 accept`"),
        "{told}"
    );
    let told =
        reasons(&owner("", "mangle", "PREROUTING", Hook::Prerouting, Some("iptables-legacy"))).remove(0);
    assert!(told.starts_with("forward-blocked: iptables-legacy mangle PREROUTING drops"), "{told}");
    assert!(told.contains("`iptables-legacy -t mangle -I PREROUTING -i fanlight0 -j ACCEPT`"), "{told}");
    let told = reasons(&owner("ip", "filter", "INPUT", Hook::Input, Some("iptables-nft")));
    assert_eq!(
        told,
        ["dhcp-blocked: ip filter INPUT drops requests for addresses; add \
          `iptables-nft -I INPUT -i fan-250-0-28 -p udp -m udp --dport 67 -j ACCEPT`"]
    );
}

#[test]
fn the_drops_of_docker_are_told_apart_by_its_chains_and_by_its_rule_for_one_address() {
    let ways = ways(&observed());
    let (numbers, _) = at(&ways, Hook::Prerouting);
    let found = |chain: &str, address, is_from_elsewhere| Dropped {
        packet: 0,
        chain: chain.into(),
        is_whole: false,
        address,
        is_named: true,
        is_from_elsewhere,
    };
    let told = |table: &str, base: &str, found: Dropped| {
        let mut findings = Findings::default();
        let owner = owner("ip", table, base, Hook::Prerouting, None);
        findings.add(&ways, &numbers, &owner, std::slice::from_ref(&found));
        let crossings = crossings(&ways);
        findings.filters.add(&crossings, &[0], &owner, &[found]);
        let mut reasons = findings.reasons(|_| Holds::Yes);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        reasons.remove(0)
    };
    let container = Some(0xfa00_1c05);
    let own = told("raw", "PREROUTING", found("PREROUTING", container, true));
    assert!(own.starts_with("docker-blocked: ip raw PREROUTING drops"), "{own}");
    assert!(own.contains("250.0.28.5"), "{own}");
    assert!(told("filter", "FORWARD", found("DOCKER", None, false)).starts_with("docker-blocked: "));
    for (table, chain, address) in
        [("filter", "DOCKER-USER", None), ("filter", "FORWARD", container), ("raw", "PREROUTING", container)]
    {
        let told = told(table, chain, found(chain, address, false));
        assert!(told.starts_with(&format!("filtered: ip {table} {chain} may drop")), "{told}");
    }
}

#[test]
fn without_egress_nothing_leaves_the_overlay() {
    let mut observed = observed();
    observed.standing[0].mark.spec.egress = Egress::Drop;
    observed.standing[0].mark.spec.dhcp = false;
    assert_eq!(
        ways(&observed).iter().map(|way| way.kind).collect::<Vec<_>>(),
        [Kind::In, Kind::Out, Kind::Cut]
    );
}

#[test]
fn a_verdict_that_drops_is_no_way_past() {
    assert!(!crate::filter::Action::Verdict(Verdict::Drop).may_save());
}
