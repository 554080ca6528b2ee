use std::{fs, os::unix::fs::PermissionsExt as _};

use control::{
    announce::{Fallback, What, When},
    bgp::{NextHop, Ttl},
};

use super::{super::file::parse, *};

const BGP: &str = "[bgp]\nasn = 65147\n[[bgp.peer]]\naddress = '10.0.0.1'\nasn = 65101\n";

fn problems(text: &str) -> Vec<String> {
    parse(text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// The only problem of `[bgp]` with these further lines.
#[track_caller]
fn of_bgp(lines: &str) -> String {
    let found = problems(&format!("[bgp]\nasn = 65147\n{lines}\n"));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// The only problem of an announcement with these lines.
#[track_caller]
fn of_announce(lines: &str) -> String {
    let found = problems(&format!("{BGP}[[announce]]\nname = 'apex'\n{lines}\n"));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn a_speaker_and_its_peers_are_read_with_their_defaults() {
    let config = parse(BGP).unwrap().config;
    let bgp = config.bgp.unwrap();
    assert_eq!((bgp.asn, bgp.hold_time, bgp.graceful_restart, bgp.drain.as_secs()), (65_147, 9, 120, 10));
    assert_eq!((bgp.router_id, &*bgp.listen), (None, &[][..]));
    assert_eq!((bgp.peers[0].port, bgp.peers[0].ttl, bgp.peers[0].source), (179, Ttl::Hops(1), None));
    let text = "[bgp]\nasn = 4200000001\nrouter-id = '10.0.0.9'\nhold-time = '0s'\ngraceful-restart = '0s'\n\
                listen = ['10.0.0.9:179', '[2001:db8::9]:179']\ndrain = '0s'\n\
                [[bgp.peer]]\naddress = '2001:db8::1'\nasn = 4200000001\n\
                [[bgp.peer]]\naddress = '10.0.0.1'\nasn = 1\nmultihop = 3\nsource = '10.0.0.9'\n\
                [[bgp.peer]]\naddress = '10.0.0.2'\nasn = 1\nttl-security = true\n";
    let bgp = parse(text).unwrap().config.bgp.unwrap();
    let ttls: Vec<Ttl> = bgp.peers.iter().map(|peer| peer.ttl).collect();
    assert_eq!(ttls, [Ttl::System, Ttl::Hops(3), Ttl::Security]);
    assert_eq!((bgp.hold_time, bgp.graceful_restart, bgp.listen.len()), (0, 0, 2));
}

#[test]
fn what_is_wrong_with_a_speaker_is_told_with_line_key_and_remedy() {
    assert!(problems("[bgp]\n")[0].starts_with("1: bgp.asn: is missing; add a number"));
    assert_eq!(problems("[bgp]\nasn = 0\n"), ["2: bgp.asn: 0 is no number of an AS; use 1 to 4294967295"]);
    for (lines, end) in [
        ("hold-time = '2s'", "use at least 3s, or 0s for none"),
        ("hold-time = '65536s'", "use at most 65535s"),
        ("hold-time = '9'", "write whole seconds such as 9s"),
        ("graceful-restart = '4096s'", "use at most 4095s"),
        ("router-id = '224.0.0.1'", "write one such as 10.20.151.147"),
        ("listen = ['10.0.0.1:1', '10.0.0.2:1']", "use one"),
        ("holdtime = '9s'", "did you mean 'hold-time'?"),
    ] {
        assert!(of_bgp(lines).ends_with(end), "{}", of_bgp(lines));
    }
    let peer = |lines: &str| of_bgp(&format!("[[bgp.peer]]\naddress = '10.0.0.1'\nasn = 65101\n{lines}"));
    assert!(peer("ttl-security = true\nmultihop = 2").contains("multihop: contradicts ttl-security"));
    assert!(peer("port = 70000").ends_with("70000 is no port; use 1 to 65535"));
    assert!(peer("source = '2001:db8::1'").ends_with("use one of the peer's"));
    assert!(peer("[[bgp.peer]]\naddress = '10.0.0.1'\nasn = 1").contains("another peer's too"));
    assert!(of_bgp("[[bgp.peer]]\naddress = 'fe80::1'\nasn = 1").ends_with("use a global address"));
    let own = of_bgp("[[bgp.peer]]\naddress = '10.0.0.1'\nasn = 65147\nmultihop = 2");
    assert!(own.contains("is for peers of another AS"), "{own}");
}

#[test]
fn an_announcement_is_read_with_its_defaults() {
    let one = |lines: &str| {
        let text = format!("{BGP}[[announce]]\nname = 'apex'\n{lines}\n");
        parse(&text).unwrap_or_else(|found| panic!("{found:?}")).config.announcements[0].clone()
    };
    let plain = one("prefixes = ['192.0.2.1/32']");
    assert_eq!((plain.med, plain.med_step, plain.start, plain.on_disabled), (100, 1, 0, Fallback::Med(500)));
    assert!(plain.via.bgp && plain.via.table.is_none() && plain.peers.is_empty());
    assert_eq!(one("services = ['*']\nwhen = 'any'").what, What::Services(Vec::new(), When::Any));
    assert_eq!(one("slices = true").what, What::Slices);
    let full = one(
        "endpoints = true\nvia = ['bgp', 'table']\ntable = 110\npeers = ['10.0.0.1']\nmed = 7\non-disabled = 'withdraw'\n\
         next-hop = '10.0.0.7'\ncommunities = ['65001:1']\nas-path = [1, 2]\ndisabled-as-path = []\ndisabled-communities = []",
    );
    assert_eq!((full.via.table, full.on_disabled, full.peers.len()), (Some(110), Fallback::Withdraw, 1));
    assert_eq!(full.next_hop, NextHop::Address([10, 0, 0, 7].into()));
    assert_eq!(full.disabled_communities.map(|list| list.len()), Some(0));
    assert_eq!(full.disabled_as_path.as_deref(), Some(&[][..]));
    let target = |check: &str| {
        let text = format!("slices = true\non-down = 900\ncheck = {{ {check} }}");
        one(&text).check.unwrap().target.to_string()
    };
    assert_eq!(target("kind = 'http'"), "127.0.0.1:80");
    assert_eq!(target("kind = 'https', address = '::1'"), "[::1]:443");
    assert_eq!(target("kind = 'tcp', port = 25"), "127.0.0.1:25");
}

#[test]
fn what_is_wrong_with_an_announcement_is_told_with_line_key_and_remedy() {
    let prefix = "prefixes = ['192.0.2.1/32']";
    for (lines, end) in [
        ("", "add one of prefixes, services, slices, endpoints, own"),
        ("own = ['192.0.2.1/32']", "name the nodes that take over from each other, such as \"apex\""),
        ("own = ['192.0.2.1/32']\ngroup = 'apex'", "there is none; add it"),
        (
            "own = ['192.0.2.1/32']\ngroup = 'apex'\ntakeover = 'two'\n[cluster]\nname = 'prod'\nkeys = '/k'",
            "use one or all",
        ),
        (
            "own = ['192.0.2.1/32']\ngroup = 'apex'\nhold-back = '2m'\n[cluster]\nname = 'prod'\nkeys = '/k'",
            "use 0ms to 1m",
        ),
        ("slices = false", "set it to true"),
        ("prefixes = ['192.0.2.1/24']", "use 192.0.2.0/24"),
        ("prefixes = ['224.0.0.0/8']", "announce another"),
        ("prefixes = ['192.0.2.1/32', '192.0.2.1/32']", "list it once"),
        ("services = ['*', 'web']", "keep one of them"),
    ] {
        assert!(of_announce(lines).ends_with(end), "{}", of_announce(lines));
    }
    let lo = of_announce("slices = true\nsetup = 'lo'");
    assert!(lo.contains("setup: is for prefixes"), "{lo}");
    for (lines, end) in [
        ("slices = true", "make two"),
        ("when = 'any'", "remove it"),
        ("via = 'arp'", "use bgp or table"),
        ("via = 'table'", "add a number such as 110"),
        ("table = 110", "remove it"),
        ("via = 'table'\ntable = 254", "use another such as 110"),
        ("peers = ['10.0.0.2']", "add a [[bgp.peer]] of that address"),
        ("med = -1", "use 0 to 4294967295"),
        ("as-path = [0]", "leave it out"),
        ("as-path = ['1']", "must be a whole number, without quotes"),
        ("communities = ['1']", "write one such as 65001:100"),
        ("on-disabled = 'no'", "or a MED without quotes"),
        ("check = { kind = 'tcp' }", "name the one to connect to"),
        ("check = { kind = 'http', address = 'x' }", "write one such as 127.0.0.1"),
        ("on-down = 900", "add a check, or remove it"),
        ("down-as-path = [1]", "add a check, or remove it"),
        ("setup = 'eth0'", "use none or lo"),
        ("linger = '5s'", "remove it"),
        ("group = 'apex'", "remove it, or add own"),
        ("execute = { sideways = 'x' }", "use one of up, down, disabled"),
        ("members = {}", "not supported by this version; remove it"),
    ] {
        let text = of_announce(&format!("{prefix}\n{lines}"));
        assert!(text.ends_with(end), "{text}");
    }
    let alone = problems(&format!("[[announce]]\nname = 'apex'\n{prefix}\n"));
    assert!(alone[0].ends_with("there is no [bgp]; add it"), "{alone:?}");
    let twice = of_announce(&format!("{prefix}\n[[announce]]\nname = 'b'\n{prefix}"));
    assert!(twice.ends_with("192.0.2.1/32 is announced by 'apex' too; list it once"), "{twice}");
    let named = of_announce(&format!("{prefix}\n[[announce]]\nname = 'apex'\nslices = true"));
    assert!(named.ends_with("'apex' is another announcement's too; use another"), "{named}");
}

#[test]
fn a_password_is_its_owners_alone_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bgp.key");
    let put = |text: &str, mode| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        read_password(&path)
    };
    assert_eq!(put("secret\n", 0o600).unwrap().bytes(), b"secret");
    assert_eq!(format!("{:?}", put("secret", 0o600).unwrap()), "Password");
    assert!(put("secret", 0o644).unwrap_err().contains("mode 0644"));
    for wrong in ["", "\n", "two\nlines\n", &"x".repeat(81)] {
        assert!(put(wrong, 0o600).unwrap_err().ends_with("in one line; put one in it"), "{wrong}");
    }
}
