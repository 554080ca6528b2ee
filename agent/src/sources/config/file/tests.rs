use control::model::{Egress, Encapsulation, UplinkHook};
use proptest::prelude::*;

use super::*;

fn problems(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_full_file_is_read() {
    let document = parse(
        r#"
[node]
name = "host-28"
uplink = "eth0"

[datapath]
uplink-hook = "tc"
flows = 200_000
vip-range = "11.0.0.0/8"
nat-ports = "61000-62000"

[[fan]]
overlay = "250.0.0.0/8"
underlay = "172.30.0.0/16"
encapsulation = "ipip"
host-reserve = 3
egress = "route"
"#,
    )
    .unwrap();
    let Config { node, datapath, fans, .. } = &document.config;
    assert_eq!((node.name.as_deref(), node.uplink.as_slice()), (Some("host-28"), &["eth0".to_owned()][..]));
    assert_eq!((datapath.uplink_hook, datapath.flows), (UplinkHook::Tc, Some(200_000)));
    assert_eq!(datapath.vip_range, "11.0.0.0/8".parse().ok());
    assert_eq!(datapath.nat_ports, PortRange(61_000, 62_000));
    assert_eq!(document.fan_lines, [13]);
    let want = FanSpec {
        overlay: "250.0.0.0/8".parse().unwrap(),
        underlay: UnderlaySpec::Network("172.30.0.0/16".parse().unwrap()),
        encapsulation: Encapsulation::Ipip,
        host_reserve: 3,
        egress: Egress::Route,
        bridge: None,
        dhcp: false,
        dns: Vec::new(),
    };
    assert_eq!(fans.as_slice(), [want]);
}

#[test]
fn dhcp_and_its_resolvers_are_keys_of_a_fan() {
    let fan =
        |text: &str| parse(&format!("[[fan]]\noverlay = '250'\n{text}")).unwrap().config.fans[0].clone();
    let (one, two) =
        (fan("dhcp = true\ndns = '10.0.0.2'\n"), fan("dhcp = true\ndns = ['10.0.0.2', '10.0.0.3']\n"));
    assert!(one.dhcp && one.dns == [Ipv4Addr::new(10, 0, 0, 2)] && two.dns.len() == 2);
    let wrong = |text: &str| problems(&format!("[[fan]]\noverlay = '250'\n{text}"));
    assert_eq!(wrong("dhcp = 'yes'\n"), ["3: fan.dhcp: is a string, must be true or false, without quotes"]);
    let alone = "2: fan.overlay: dns 10.0.0.2 is offered by DHCP only; add dhcp, or leave dns out";
    assert_eq!(wrong("dns = '10.0.0.2'\n"), [alone]);
    let text = wrong("dhcp = true\ndns = ['10.0.0.2', 'x']\n");
    assert!(text[0].starts_with("4: fan.dns: dns 'x' is no address of a resolver"), "{text:?}");
}

#[test]
fn an_empty_file_asks_for_nothing() {
    assert_eq!(parse("").unwrap().config, Config::default());
}

#[test]
fn without_an_underlay_it_is_the_uplinks_network() {
    let underlay = |text| parse(text).unwrap().config.fans[0].underlay.clone();
    assert_eq!(underlay("[[fan]]\noverlay = '250'\n"), UnderlaySpec::Default { len: None });
    let device = UnderlaySpec::Device { name: "eth1".to_owned(), len: None };
    assert_eq!(underlay("[node]\nuplink = ['eth1', 'eth2']\n[[fan]]\noverlay = '250'\n"), device);
}

/// What is wrong, and what is said of it.
const MISTAKES: &[(&str, &str)] = &[
    ("[nod]\n", "1: nod: unknown key; did you mean 'node'?"),
    (
        "\n[zzz]\n",
        "2: zzz: unknown key; use one of node, datapath, fan, service, source, cluster, api, bgp, announce",
    ),
    ("[node]\nuplnk = 'eth0'\n", "2: node.uplnk: unknown key; did you mean 'uplink'?"),
    ("[node]\nname = 5\n", "2: node.name: is an integer, must be a string in quotes"),
    (
        "[node]\nname = 'a b'\n",
        "2: node.name: \"a b\" is no node name: take a host name label of a-z, 0-9 and -, at most 63 bytes",
    ),
    ("[node]\nuplink = 5\n", "2: node.uplink: is an integer, must be a string in quotes or a list of them"),
    ("[node]\nuplink = ['eth0', 'eth0']\n", "2: node.uplink: 'eth0' is listed twice; list it once"),
    ("[node]\nuplink = []\n", "2: node.uplink: is an empty list; put something in, or remove it"),
    ("[node]\nuplink = 'a/b'\n", "2: node.uplink: 'a/b' is no name of a device; use a name such as eth0"),
    ("node = 5\n", "1: node: is an integer, must be a table; write [node]"),
    ("[datapath]\nuplink-hook = 'tcx'\n", "2: datapath.uplink-hook: 'tcx' is unknown; use auto, xdp or tc"),
    (
        "[datapath]\nflows = 5\n",
        "2: datapath.flows: 5 flows are too few; use auto, or at least 1024 a possible CPU",
    ),
    (
        "[datapath]\nflows = 'many'\n",
        "2: datapath.flows: 'many' is unknown; use auto or a number, without quotes",
    ),
    ("[datapath]\nrewrite = 'packet'\n", "2: datapath.rewrite: not supported by this version; remove it"),
    ("[datapath]\ncgroup = '/x'\n", "2: datapath.cgroup: not supported by this version; remove it"),
    (
        "[datapath]\nvip-range = '11/8'\n",
        "2: datapath.vip-range: '11/8' is no IPv4 network; write one such as 11.0.0.0/8",
    ),
    (
        "[datapath]\nvip-range = '11.1.0.0/8'\n",
        "2: datapath.vip-range: 11.1.0.0/8 has host bits set; use 11.0.0.0/8",
    ),
    (
        "[datapath]\nvip-range = '127.0.0.0/8'\n",
        "2: datapath.vip-range: 127.0.0.0/8 holds a loopback address; use an unused network such as 11.0.0.0/8",
    ),
    (
        "[datapath]\nnat-ports = '61000'\n",
        "2: datapath.nat-ports: '61000' is no range of ports; write one such as 61000-65535",
    ),
    (
        "[datapath]\nnat-ports = '80-90'\n",
        "2: datapath.nat-ports: port 80 is a well-known one; start at 1024 or above",
    ),
    (
        "[datapath]\nnat-ports = '62000-61000'\n",
        "2: datapath.nat-ports: '62000-61000' ends before it starts; write 61000-62000",
    ),
    (
        "[[source]]\nkind = 'etcd'\n",
        "1: source.path: is missing; add one such as \"/etc/fanlight/services.d\"\n\
         2: source.kind: 'etcd' is unknown; use directory",
    ),
    (
        "[[source]]\nkind = 'directory'\npath = 'services.d'\n",
        "3: source.path: 'services.d' is no path of a directory from the root on; write one such as \
         /etc/fanlight/services.d",
    ),
    (
        "[[source]]\nkind = 'directory'\npath = '/a'\n[[source]]\nkind = 'directory'\npath = '/a//'\n",
        "6: source.path: /a is another source's path too; list it once",
    ),
    (
        "[[source]]\npth = '/a'\nkind = 'directory'\npath = '/a'\n",
        "2: source.pth: unknown key; did you mean 'path'?",
    ),
    (
        "[cluster]\nlisten = '127.0.0.1:7481'\n",
        "1: cluster.name: is missing; give the cluster a name such as \"prod\"",
    ),
    (
        "[cluster]\nname = 'a b'\ninsecure = true\n",
        "2: cluster.name: 'a b' is no name of a cluster; use 1 to 63 letters, digits, '-', '_' and '.'",
    ),
    (
        "[cluster]\nname = 'prod'\n",
        "1: cluster.keys: is missing, and 0.0.0.0:7481 is beyond loopback; name a file of keys (`head -c 32 \
         /dev/urandom | base64` makes a key), listen on 127.0.0.1, or set insecure = true",
    ),
    (
        "[cluster]\nname = 'prod'\nkeys = '/k'\ninsecure = true\n",
        "4: cluster.insecure: is true beside keys; remove one of them",
    ),
    (
        "[cluster]\nname = 'prod'\nkeys = 'k'\n",
        "3: cluster.keys: 'k' is no path of a file from the root on; write one such as /etc/fanlight/cluster.keys",
    ),
    (
        "[cluster]\nname = 'prod'\ninsecure = true\nlisten = '0.0.0.0'\n",
        "4: cluster.listen: '0.0.0.0' is no IPv4 ADDRESS:PORT; write one such as 172.30.0.28:7481",
    ),
    (
        "[cluster]\nname = 'prod'\ninsecure = true\nadvertise = '0.0.0.0:7481'\n",
        "4: cluster.advertise: 0.0.0.0:7481 is no address that members can send to; use the node's own, or leave it out",
    ),
    (
        "[cluster]\nname = 'prod'\ninsecure = true\njoin = ['172.30.0.27']\n",
        "4: cluster.join: '172.30.0.27' is no ADDRESS:PORT or NAME:PORT; write one such as 172.30.0.27:7481",
    ),
    (
        "[cluster]\nname = 'prod'\ninsecure = true\ndata = 'x'\n",
        "4: cluster.data: 'x' is no path of a folder from the root on; write one such as /var/lib/fanlight",
    ),
    (
        "[cluster]\nname = 'prod'\ninsecure = 'yes'\n",
        "3: cluster.insecure: is a string, must be true or false, without quotes",
    ),
    (
        "[cluster]\nname = 'prod'\ninsecure = true\njion = []\n",
        "4: cluster.jion: unknown key; did you mean 'join'?",
    ),
    (
        "[api]\nlisten = '7480'\n",
        "2: api.listen: '7480' is no ADDRESS:PORT; write one such as 127.0.0.1:7480",
    ),
    ("[api]\ntoken-file = '/x'\n", "2: api.token-file: not supported by this version; remove it"),
    (
        "[api]\nsocket = 'api.sock'\n",
        "2: api.socket: 'api.sock' is no path of a file from the root on; write one such as /run/fanlight/api.sock",
    ),
    ("[fan]\noverlay = '250'\n", "1: fan: is a table, must be a list of tables; write [[fan]]"),
    ("[[fan]]\n", "1: fan.overlay: is missing; add a network such as \"250.0.0.0/8\""),
    ("[[fan]]\noverlay = 250\n", "2: fan.overlay: is an integer, must be a string in quotes"),
    (
        "[[fan]]\noverlay = '250'\nencapsulation = 'vxlan'\n",
        "3: fan.encapsulation: encapsulation 'vxlan' is not supported by this version; use ipip",
    ),
    (
        "[[fan]]\noverlay = '250'\nhost-reserve = -1\n",
        "3: fan.host-reserve: -1 is out of range; use 0 to 4294967295",
    ),
    (
        "[[fan]]\noverlay = '250'\nhost-reserve = '1'\n",
        "3: fan.host-reserve: is a string, must be a whole number, without quotes",
    ),
    (
        "[node]\nuplink = 'eth0'\n[[fan]]\noverlay = '250'\nunderlay = 'eth1'\n",
        "5: fan.underlay: device eth1 is not among node.uplink; name one of eth0",
    ),
    (
        "[[fan]]\noverlay = '250.0.0.0/16'\nunderlay = '10.1.0.0/16'\n",
        "2: fan.overlay: 250.0.0.0/16 over 10.1.0.0/16: overlay /16 has no room for underlay /16; \
             use an overlay with a shorter prefix than the underlay's",
    ),
    (
        "[[fan]]\noverlay = '250'\n\n[[fan]]\noverlay = '250.1.0.0/16'\n",
        "5: fan.overlay: overlay 250.1.0.0/16 overlaps 250.0.0.0/8; give each fan addresses of its own",
    ),
];

#[test]
fn each_mistake_is_named_with_line_key_and_remedy() {
    for &(text, want) in MISTAKES {
        assert_eq!(problems(text).join("\n"), want, "{text}");
    }
}

#[test]
fn all_mistakes_of_a_file_are_found_at_once() {
    let text = "[node]\nnam = 'a'\n[datapath]\nuplink-hook = 3\n[[fan]]\noverlay = 'x'\negress = 'y'\n";
    let lines: Vec<_> =
        problems(text).iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect();
    assert_eq!(lines, ["2", "4", "6", "7"]);
}

#[test]
fn what_is_not_toml_is_one_line_with_its_place() {
    let found = problems("[node]\nname = \n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("2: not TOML: "), "{found:?}");
    assert!(!found[0].contains('\n'));
}

#[test]
fn the_ninth_fan_is_one_too_many() {
    let text: String = (1..=9).map(|n| format!("[[fan]]\noverlay = '{n}'\nunderlay = 'eth0/16'\n")).collect();
    assert_eq!(problems(&text), ["26: fan: a node has at most 8 fans; remove 1"]);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _result = parse(&text);
    }

    #[test]
    fn no_text_like_a_configuration_makes_the_parser_panic(
        lines in prop::collection::vec(
            "(\\[\\[?(node|fan|datapath|service)\\]?\\]|(name|uplink|overlay|underlay|host-reserve|egress|vip|vip-range|nat-ports|flows|backends) = ([0-9]{1,20}|'[a-z0-9./:-]{0,20}'|\\[\\]|true|0x[0-9a-f]{1,9}))",
            0..12,
        )
    ) {
        let _result = parse(&lines.join("\n"));
    }
}
