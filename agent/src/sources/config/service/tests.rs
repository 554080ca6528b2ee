use control::desired::{self, Input, Inputs, SourceId};
use proptest::prelude::*;

use super::*;
use crate::sources::config::file;

const FAN: &str = "[[fan]]\noverlay = '250'\n";

fn parse(text: &str) -> Result<Vec<Placed>, Vec<String>> {
    let lines = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    let document = file::parse(text).map_err(lines)?;
    let overlays: Vec<_> = document.config.fans.iter().map(|fan| fan.overlay).collect();
    let problems = check_addresses(&document.services, &overlays);
    if problems.is_empty() { Ok(document.services) } else { Err(lines(problems)) }
}

fn services(text: &str) -> Vec<Declared> {
    parse(text).unwrap().into_iter().map(|placed| placed.service).collect()
}

/// What is said of a service without a list of backends, which most of these texts lack.
const NO_BACKENDS: &str =
    "service.backends: is missing; list the backends, or write backends = [] for a service that has none";

/// A file with a fan and a service that has these lines beside its name, from line 5 on.
fn problems(lines: &str) -> Vec<String> {
    let mut found = parse(&format!("{FAN}[[service]]\nname = 'web'\n{lines}\n")).err().unwrap_or_default();
    found.retain(|problem| !problem.ends_with(NO_BACKENDS));
    found
}

#[test]
fn a_full_service_is_read() {
    let text = r#"
[[service]]
name = "web"
vip = "10.96.0.10:80/tcp"
forward = "nat"
algorithm = "random"
affinity = "none"
backends = [ { address = "250.0.27.3:8080", weight = 5 }, { address = "250.0.28.4:8080" } ]
"#;
    let backend = |last: [u8; 4], weight| Backend { address: last.into(), port: 8080, weight };
    let want = Declared {
        name: "web".to_owned(),
        vip: "10.96.0.10:80/tcp".parse().unwrap(),
        algorithm: Algorithm::Random,
        checking: None,
        backends: vec![backend([250, 0, 27, 3], 5), backend([250, 0, 28, 4], 1)],
    };
    assert_eq!(services(&format!("{FAN}{text}")), [want]);
}

#[test]
fn a_vip_of_the_service_s_own_name_and_a_label_with_it_are_the_same() {
    let text = |vip: &str| format!("[[service]]\nname = 'web'\n{vip}\nbackends = []\n");
    let all = [
        "vip = 'auto:80/tcp'",
        "labels = { VIP_0 = '/web:80' }",
        "vip = 'auto:80/tcp'\nlabels = { VIP = '/web:80' }",
    ];
    for vip in all {
        let placed = parse(&text(vip)).unwrap();
        assert_eq!(placed[0].service.vip.to_string(), "/web:80/tcp");
        let range = check_range(&placed, None).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(
            range[0].contains(": service.vip: named VIPs need a range; set vip-range in [datapath]"),
            "{range:?}"
        );
        assert_eq!(check_range(&placed, "11.0.0.0/8".parse().ok()), []);
    }
    let other = parse(&text("vip = 'auto:80/tcp'\nlabels = { VIP_0 = '/db:80' }")).unwrap_err();
    assert!(other[0].contains("/db:80/tcp is another VIP than /web:80/tcp"), "{other:?}");
}

#[test]
fn a_service_may_have_no_backend_yet() {
    let service = "[[service]]\nname = 'a'\nvip = '10.96.0.10:80/tcp'\nbackends = []\n";
    assert_eq!(services(service)[0].backends, []);
}

#[test]
fn a_service_without_a_list_of_backends_is_refused_in_the_words_of_its_format() {
    let texts = [
        (Format::Toml, "[[service]]\nname = 'a'\nvip = '10.0.0.1:80/tcp'\n", "backends = []"),
        (Format::Toml, "[[service]]\nname = 'a'\nlabels = { VIP_0 = '10.0.0.1:80' }\n", "backends = []"),
        (Format::Yaml, "service:\n- name: a\n  vip: 10.0.0.1:80/tcp\n", "backends: []"),
        (Format::Yaml, "service:\n- name: a\n  labels: { VIP_0: '10.0.0.1:80' }\n", "backends: []"),
        (Format::Json, r#"{"service": [{"name": "a", "vip": "10.0.0.1:80/tcp"}]}"#, "\"backends\": []"),
    ];
    for (format, text, empty) in texts {
        let problems = super::parse(text, format).unwrap_err();
        let want = format!(
            "service.backends: is missing; list the backends, or write {empty} for a service that has none"
        );
        assert!(problems.len() == 1 && problems[0].to_string().ends_with(&want), "{format:?}: {problems:?}");
    }
    let file = file::parse(texts[0].1).unwrap_err();
    assert_eq!(file[0].to_string(), format!("1: {NO_BACKENDS}"));
    let null = super::parse("service:\n- name: a\n  vip: 10.0.0.1:80/tcp\n  backends:\n", Format::Yaml);
    assert!(
        null.unwrap_err()[0].to_string().contains("service.backends: is null, must be a list of mappings")
    );
}

#[test]
fn a_vip_may_be_named_twice_if_both_say_the_same() {
    let text = |vip: &str, labels: &str| {
        format!("[[service]]\nname = 'a'\n{vip}\nlabels = {{ {labels} }}\nbackends = []\n")
    };
    let same = [
        ("vip = '10.0.0.1:80/tcp'", "VIP_0 = '10.0.0.1:80'"),
        ("", "VIP_0 = 'tcp://10.0.0.1:80', VIP_1 = '10.0.0.1:80'"),
    ];
    for (vip, labels) in same {
        assert_eq!(services(&text(vip, labels))[0].vip.to_string(), "10.0.0.1:80/tcp");
    }
    let found = parse(&text("vip = '10.0.0.1:80/tcp'", "VIP_0 = 'udp://10.0.0.1:80'")).unwrap_err();
    let want = "4: service.labels.VIP_0: 10.0.0.1:80/udp is another VIP than 10.0.0.1:80/tcp; make a service of each";
    assert_eq!(found, [want]);
}

#[test]
fn what_is_long_is_cut_in_messages() {
    let long = "a".repeat(5000);
    for text in [
        format!("[[service]]\nname = '{long}'\nvip = '{long}'\nbackends = [ {{ address = '{long}' }} ]\n"),
        format!("[[service]]\n{long} = 1\n"),
        format!("[[service]]\nname = 'a'\nlabels = {{ VIP_{long} = '{long}' }}\n"),
        format!("[node]\nname = '{long}'\nuplink = '{long}'\n[api]\nsocket = '{long}'\n"),
        format!(
            "[[fan]]\noverlay = '{long}'\nunderlay = '{long}'\negress = '{long}'\nencapsulation = '{long}'\n"
        ),
        format!("[datapath]\nvip-range = '{long}'\nnat-ports = '{long}'\nflows = '{long}'\n"),
        format!("[[fan]]\nhost-reserve = {}\n", "1".repeat(5000)),
    ] {
        for problem in parse(&text).unwrap_err() {
            assert!(problem.len() < 300, "{problem}");
        }
    }
}

#[test]
fn json_is_what_rfc_8259_says() {
    let wrong = [
        ("{\"service\": [\n],}", "2: not JSON: trailing comma"),
        ("{\"service\": [{},\n]}", "2: not JSON: trailing comma"),
        ("{service: []}", "1: not JSON: key must be a string"),
        ("{\"service\": []} # done", "1: not JSON: trailing characters"),
        ("{\"service\": [01]}", "1: not JSON: invalid number"),
        ("", "1: not JSON: EOF while parsing a value"),
    ];
    for (text, want) in wrong {
        let problems = super::parse(text, Format::Json).unwrap_err();
        assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [want], "{text}");
    }
    // Escapes beyond the first plane are pairs, as in no YAML.
    let text = r#"{"service": [{"name": "\ud83d\ude00", "vip": "10.0.0.1:80\u002ftcp", "backends": []}]}"#;
    let problems = super::parse(text, Format::Json).unwrap_err();
    assert!(problems[0].message.starts_with("'\u{1f600}' is no name of a service"), "{problems:?}");
}

#[test]
fn one_address_may_have_services_of_several_ports_and_protocols() {
    let ports = ["80/tcp", "80/udp", "81/tcp", "0/tcp"];
    let text: String = ports
        .iter()
        .map(|port| {
            format!(
                "[[service]]\nname = '{}'\nvip = '10.96.0.10:{port}'\nbackends = []\n",
                port.replace('/', "-")
            )
        })
        .collect();
    assert_eq!(services(&text).len(), ports.len());
}

/// What is wrong, and what is said of it.
const MISTAKES: &[(&str, &str)] = &[
    ("", "3: service.vip: is missing; add one such as \"10.96.0.10:80/tcp\""),
    (
        "vip = '10.96.0.10:80'",
        "5: service.vip: '10.96.0.10:80' is no VIP; write ADDRESS:PORT/tcp or ADDRESS:PORT/udp, such as 10.96.0.10:80/tcp",
    ),
    (
        "vip = 'auto:80'",
        "5: service.vip: 'auto:80' is no VIP; write auto:PORT/tcp or auto:PORT/udp, such as auto:80/tcp",
    ),
    (
        "vip = '[fd00::1]:80/tcp'",
        "5: service.vip: '[fd00::1]:80/tcp': IPv6 is not supported by this version; give an IPv4 address",
    ),
    ("vip = '127.0.0.1:80/tcp'", "5: service.vip: 127.0.0.1 is a loopback address; give an unused address"),
    ("vip = '239.1.1.1:80/tcp'", "5: service.vip: 239.1.1.1 is a multicast address; give an unused address"),
    (
        "vip = '0.0.0.0:80/tcp'",
        "5: service.vip: 0.0.0.0 is no host's address (RFC 1122); give an unused address",
    ),
    (
        "vip = '250.1.2.3:80/tcp'\nbackends = []",
        "5: service.vip: 250.1.2.3 lies in overlay 250.0.0.0/8; give an unused address",
    ),
    (
        "labels = { VIP_0 = '/web' }",
        "5: service.labels.VIP_0: '/web' is no VIP; write ADDRESS:PORT or /NAME:PORT, with tcp:// or udp:// before it, \
         such as 10.96.0.10:80",
    ),
    (
        "labels = { VIP_0 = 'sctp://10.0.0.1:80' }",
        "5: service.labels.VIP_0: 'sctp://10.0.0.1:80' is no VIP; write ADDRESS:PORT or /NAME:PORT, with tcp:// or \
         udp:// before it, such as 10.96.0.10:80",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nlabels = { VIP_0 = '10.0.0.2:80' }",
        "6: service.labels.VIP_0: 10.0.0.2:80/tcp is another VIP than 10.0.0.1:80/tcp; make a service of each",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nforward = 'tunnel'",
        "6: service.forward: 'tunnel' is not supported by this version; use nat",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nalgorithm = 'least-loaded'",
        "6: service.algorithm: 'least-loaded' is not supported by this version; use maglev or random",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nalgorithm = 'magic'",
        "6: service.algorithm: 'magic' is unknown; use maglev or random",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\naffinity = 'client'",
        "6: service.affinity: 'client' is not supported by this version; use none",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\naffinity-timeout = '3h'",
        "6: service.affinity-timeout: not supported by this version; remove it",
    ),
    ("vip = '10.0.0.1:80/tcp'\nbackend = []", "6: service.backend: unknown key; did you mean 'backends'?"),
    (
        "vip = '10.0.0.1:80/tcp'\nbackends = '250.0.0.2:80'",
        "6: service.backends: is a string, must be a list of tables; write backends = [ { .. } ]",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nbackends = [ { wight = 1 , address = '250.0.0.2:80' } ]",
        "6: service.backends.wight: unknown key; did you mean 'weight'?",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nbackends = [ { weight = 1 } ]",
        "6: service.backends.address: is missing; add one such as \"250.0.27.3:8080\"",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nbackends = [\n { address = '250.0.0.2' } ]",
        "7: service.backends.address: '250.0.0.2' is no backend; write ADDRESS:PORT, such as 250.0.27.3:8080",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nbackends = [ { address = '[fd00::2]:80' } ]",
        "6: service.backends.address: '[fd00::2]:80': IPv6 is not supported by this version; give an IPv4 address",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nbackends = [ { address = '250.0.0.2:0' } ]",
        "6: service.backends.address: port 0 is for VIPs of any port; name the one that serves port 80",
    ),
    (
        "vip = '10.0.0.1:0/tcp'\nbackends = [ { address = '250.0.0.2:80' } ]",
        "6: service.backends.address: port 80 can't serve a VIP of any port; use port 0, which keeps the client's",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nbackends = [ { address = '250.0.0.2:80' },\n{ address = '250.0.0.2:80' } ]",
        "7: service.backends.address: 250.0.0.2:80 is listed twice; list it once",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nbackends = [ { address = '250.0.0.2:80' },\n{ address = '10.0.0.2:80' } ]\n\
             [[service]]\nname = 'db'\nvip = '10.0.0.2:5432/tcp'\nbackends = []",
        "7: service.backends.address: 10.0.0.2 is the VIP of service db; name its backends",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nbackends = []\n[[service]]\nname = 'db'\nvip = '10.0.0.2:5432/tcp'\n\
             backends = [ { address = '10.0.0.1:80' } ]",
        "10: service.backends.address: 10.0.0.1 is the VIP of service web; name its backends",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\nbackends = [ { address = '127.0.0.1:80' } ]",
        "6: service.backends.address: 127.0.0.1 is a loopback address; give an address of the backend that other \
             hosts reach",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\n[[service]]\nname = 'web'\nvip = '10.0.0.2:80/tcp'",
        "7: service.name: 'web' is another service's name too; give each its own",
    ),
    (
        "vip = '10.0.0.1:80/tcp'\n[[service]]\nname = 'b'\nvip = '10.0.0.1:80/tcp'",
        "8: service.vip: 10.0.0.1:80/tcp is the VIP of service web; give each its own",
    ),
];

#[test]
fn each_mistake_is_named_with_line_key_and_remedy() {
    for &(lines, want) in MISTAKES {
        assert_eq!(problems(lines), [want], "{lines}");
    }
}

#[test]
fn services_that_stand_keep_their_vips_and_backends_addresses_for_themselves() {
    let one = |name: &str, vip: &str, backend: &str| {
        let lines = format!("vip = '{vip}:80/tcp'\nbackends = [ {{ address = '{backend}:80' }} ]\n");
        format!("[[service]]\nname = '{name}'\n{lines}")
    };
    let standing = services(&(one("web", "10.0.0.1", "172.16.0.1") + &one("db", "10.0.0.2", "172.16.0.2")));
    let mut inputs = Inputs::default();
    let dirty = inputs.replace(SourceId::Applied, Input::defining("applied", &standing));
    let (desired, _) = desired::desired(&inputs, &desired::Desired::default(), &dirty);
    let beside = |text: &str| {
        let placed = parse(text).unwrap();
        let problems = check_beside(&placed, &inputs, &desired);
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let taken =
        "3: service.vip: 172.16.0.1 is a backend's address of service web; give the service another VIP";
    assert_eq!(beside(&one("new", "172.16.0.1", "172.16.0.3")), [taken]);
    assert_eq!(beside(&one("db", "172.16.0.1", "172.16.0.3")), [taken]);
    let called = "4: service.backends.address: 10.0.0.2 is the VIP of service db; name its backends";
    assert_eq!(beside(&one("new", "10.0.0.3", "10.0.0.2")), [called]);
    // What is replaced holds nothing any more.
    assert_eq!(beside(&one("web", "172.16.0.1", "10.0.0.1")), [""; 0]);
    assert_eq!(
        beside(&(one("new", "172.16.0.2", "10.0.0.2") + &one("db", "10.0.0.4", "172.16.0.4"))),
        [""; 0]
    );
    assert_eq!(beside(&one("web", "10.0.0.1", "172.16.0.2")), [""; 0]);
}

#[test]
fn a_label_may_name_the_vip_as_in_minuteman() {
    let vips = [
        ("VIP_0 = '10.96.0.10:80'", "10.96.0.10:80/tcp"),
        ("VIP_0 = '/web:80'", "/web:80/tcp"),
        ("vip_port0 = 'udp:///group/dns:53'", "/group/dns:53/udp"),
        ("vip_1 = 'tcp://10.96.0.10:81', owner = 3", "10.96.0.10:81/tcp"),
        ("VIP_PORT1 = 'udp://10.96.0.10:53'", "10.96.0.10:53/udp"),
    ];
    for (labels, vip) in vips {
        let found = services(&format!("[[service]]\nname = 'a'\nlabels = {{ {labels} }}\nbackends = []\n"));
        assert_eq!(found[0].vip.to_string(), vip);
    }
}

#[test]
fn toml_yaml_and_json_say_the_same() {
    let toml = "# a comment\n[[service]]\nname = 'web'\nvip = '10.96.0.10:80/tcp'\n\
                backends = [ { address = '250.0.0.2:80', weight = 16 } ]\n";
    let yaml = "# a comment\nservice:\n- name: web\n  vip: 10.96.0.10:80/tcp\n  backends:\n  \
                - address: 250.0.0.2:80\n    weight: 0x10\n";
    let json = "{\n\t\"service\": [\n\t\t{ \"name\": \"web\", \"vip\": \"10.96.0.10:80\\/tcp\",\n\t\t  \"backends\": \
                [{\"address\": \"250.0.0.2:80\", \"weight\": 16}] }\n\t]\n}\n";
    let [toml, yaml, json] =
        [(toml, Format::Toml), (yaml, Format::Yaml), (json, Format::Json)].map(|(text, format)| {
            assert_eq!(Format::guess(text), format);
            let found =
                super::parse(text, format).unwrap_or_else(|problems| panic!("{format:?}: {problems:?}"));
            found.into_iter().map(|placed| placed.service).collect::<Vec<_>>()
        });
    assert_eq!(toml[0].backends[0].weight, 16);
    assert_eq!((&yaml, &json), (&toml, &toml));
}

/// What is wrong with services that stand by themselves, and what is said of it.
const ALONE: &[(Format, &str, &str)] = &[
    (Format::Toml, "", "1: service: is missing; write a list of services"),
    (Format::Toml, "[[fan]]\n", "1: fan: unknown key; use one of service"),
    (Format::Yaml, "", "1: is empty; write a list 'service'"),
    (Format::Yaml, "- a\n", "1: is a list, must be a mapping with a list 'service'"),
    (
        Format::Yaml,
        "service:\n- name: 80\n  vip: 10.0.0.1:80/tcp\n",
        "2: service.name: is an integer, must be a string in quotes",
    ),
    (Format::Yaml, "service:\n- name: a\n  vip: ~\n", "3: service.vip: is null, must be a string in quotes"),
    (
        Format::Yaml,
        "service:\n- name: a\n  vip: 10.0.0.1:80/tcp\n  nam: b\n",
        "4: service.nam: unknown key; did you mean 'name'?",
    ),
    (Format::Yaml, "service:\n- name: a\n  name: b\n", "3: the key 'name' stands twice; write it once"),
    (Format::Yaml, "service: &a\n- *a\n", "2: aliases are not supported; write the value again"),
    (Format::Yaml, "service: []\n---\nservice: []\n", "2: a second document; keep one"),
    (
        Format::Json,
        "{\"service\":\n [{\"name\": \"a\",\n \"vip\": 1.5}]}",
        "3: service.vip: is a number with a fraction or an exponent, must be a string in quotes",
    ),
    (
        Format::Json,
        "{\"service\": {}}",
        "1: service: is an object, must be an array of objects; write \"service\": [ { .. } ]",
    ),
    (Format::Json, "{}", "1: service: is missing; write an array of services"),
    (Format::Json, "[1]", "1: is an array, must be an object with an array 'service'"),
    (
        Format::Json,
        "{\"service\": [{\"name\": \"a\",\n\"name\": \"b\"}]}",
        "2: the key 'name' stands twice; write it once",
    ),
    (
        Format::Yaml,
        "service: 5\n",
        "1: service: is an integer, must be a list of mappings; write 'service:' and '- ..' below for each",
    ),
    (
        Format::Yaml,
        "service:\n- name: a\n  labels: b\n",
        "3: service.labels: is a string, must be a mapping; write 'labels:' and its keys below",
    ),
];

#[test]
fn mistakes_of_services_by_themselves_are_named_in_every_format() {
    for &(format, text, want) in ALONE {
        let problems = super::parse(text, format).map(drop).unwrap_err();
        let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(found.contains(&want.to_owned()), "{text}: {found:?}");
    }
    let broken = super::parse("{\"service\": [\n{\"name\" \"a\"}]}", Format::Json).map(drop).unwrap_err();
    assert!(broken[0].to_string().starts_with("2: not JSON: "), "{}", broken[0]);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let problems = super::parse(&deep, Format::Json).map(drop).unwrap_err();
    assert_eq!(problems[0].to_string(), "1: not JSON: recursion limit exceeded");
    let deep = format!("service: {}", "[".repeat(20));
    let problems = super::parse(&deep, Format::Yaml).map(drop).unwrap_err();
    assert_eq!(problems[0].to_string(), "1: is nested too deeply; write a list 'service'");
}

#[test]
fn the_format_of_a_text_without_a_name_is_told_by_its_beginning() {
    for (text, format) in [
        ("[{\"name\": \"a\"}]", Format::Json),
        ("[\n]", Format::Json),
        ("[ [service]]\n", Format::Toml),
        ("[api]\n", Format::Toml),
        ("service = []\n", Format::Toml),
        ("service: []\n", Format::Yaml),
    ] {
        assert_eq!(Format::guess(text), format, "{text}");
    }
}

#[test]
fn the_page_of_services_says_the_limits() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/services.md"));
    let thousands = |number: u32| format!("{},{:03}", number / 1000, number % 1000);
    for (what, most) in [
        ("services of a node", thousands(MAX_SERVICES)),
        ("backends of a service", thousands(MAX_SERVICE_BACKENDS)),
        ("length of a service's name", format!("{MAX_NAME} characters")),
    ] {
        assert!(page.contains(&format!("| {what} | {most} |")), "{what}: {most}");
    }
}

#[test]
fn one_backend_too_many_is_counted() {
    let backends: String = (0..1026)
        .map(|number| format!("{{ address = '250.0.{}.{}:80' }},", number / 256, number % 256))
        .collect();
    let lines = format!("vip = '10.0.0.1:80/tcp'\nbackends = [{backends}]");
    assert_eq!(problems(&lines), ["6: service.backends: a service has at most 1024 backends; remove 2"]);
}

#[test]
fn a_name_is_short_and_without_blanks() {
    for name in ["", "a b", "a/b", &"a".repeat(64)] {
        let found = parse(&format!("[[service]]\nname = '{name}'\nvip = '10.0.0.1:80/tcp'\n")).unwrap_err();
        assert!(found.iter().any(|problem| problem.starts_with("2: service.name: ")), "{found:?}");
    }
}

proptest! {
    #[test]
    fn no_text_like_yaml_or_json_makes_the_parser_panic(
        lines in prop::collection::vec("( {0,4}(- )?(service|name|vip|backends|address|weight): ?[a-z0-9.:/&*!|>'\"\\[\\]{},~-]{0,20}|[\\[\\]{}:,\"a-z0-9 \t-]{0,20})", 0..12)
    ) {
        let _result = super::parse(&lines.join("\n"), Format::Yaml);
        let _result = super::parse(&lines.join("\n"), Format::Json);
    }

    #[test]
    fn no_text_like_a_service_makes_the_parser_panic(
        lines in prop::collection::vec(
            "(\\[\\[service\\]\\]|(name|vip|forward|algorithm|affinity|affinity-timeout) = '[a-z0-9./:\\[\\]-]{0,20}'|backends = \\[ \\{ (address|weight) = ('[0-9.:]{0,18}'|[0-9]{1,12}) \\} \\])",
            0..12,
        )
    ) {
        let _result = parse(&lines.join("\n"));
    }
}
