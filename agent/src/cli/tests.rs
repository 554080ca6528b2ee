use proptest::prelude::*;

use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn usage(line: &str) -> String {
    match parse(&words(line)) {
        Ok(_) => panic!("'{line}' was understood"),
        Err(line) => line,
    }
}

/// Command lines that can't be parsed, and the one line that says why and what would be right.
const BAD: &[(&str, &str)] = &[
    (
        "fanlight",
        "which command is missing; use agent, fan, up, down, endpoint, service, backend, check, node, maintenance, announce, bgp, kv, event, flow, reload, status, monitor, explain, replay, check-config, \
         completions or manual",
    ),
    ("fanlight fans", "no command 'fans'; did you mean 'fan'?"),
    (
        "fanlight dns list",
        "no command 'dns'; use agent, fan, up, down, endpoint, service, backend, check, node, maintenance, announce, bgp, kv, event, flow, reload, status, monitor, explain, replay, check-config, completions \
         or manual",
    ),
    (
        "fanlight service drain web 250.0.27.3",
        "service drain: BACKEND '250.0.27.3': no ADDRESS:PORT such as 250.0.27.3:8080; see 'fanlight service drain \
         --help'",
    ),
    ("fanlight service apply", "service apply: --file FILE is missing; see 'fanlight service apply --help'"),
    ("fanlight status --jsn", "status: no option '--jsn'; did you mean '--json'?"),
    ("fanlight status --foo", "status: no option '--foo'; see 'fanlight status --help'"),
    ("fanlight status foo", "status: nothing to be done with 'foo'; see 'fanlight status --help'"),
    ("fanlight agent --config", "agent: --config needs a value; see 'fanlight agent --help'"),
    ("fanlight agent --detatch", "agent: no option '--detatch'; did you mean '--detach'?"),
    ("fanlight agent --detach --detach", "agent: '--detach' is given twice; give it once"),
    ("fanlight fan", "fan: which command is missing; use up, down, show or test"),
    ("fanlight fan import f", "fan: no command 'import'; use up, down, show or test"),
    (
        "fanlight fan up -a 250 eth0",
        "fan up: '--all' and 'OVERLAY UNDERLAY FLAGS' exclude each other; leave one out",
    ),
    ("fanlight fan up 250 eth0 --dhpc", "fan up: no option '--dhpc'; did you mean '--dhcp'?"),
    ("fanlight fan show 250", "fan show: nothing to be done with '250'; see 'fanlight fan show --help'"),
    ("fanlight fan test", "fan test: HOST is missing; see 'fanlight fan test --help'"),
    (
        "fanlight fan test host-7",
        "fan test: HOST 'host-7': invalid IPv4 address syntax; see 'fanlight fan test --help'",
    ),
    ("fanctl upp", "fan: no command 'upp'; did you mean 'up'?"),
    ("fanlight endpoint add", "endpoint add: --netns NS is missing; see 'fanlight endpoint add --help'"),
    (
        "fanlight endpoint add --netns a --address x",
        "endpoint add: --address 'x': invalid IPv4 address syntax; see 'fanlight endpoint add --help'",
    ),
    ("fanlight endpoint remove", "endpoint remove: NAME is missing; see 'fanlight endpoint remove --help'"),
    ("fanlight replay", "replay: --in FILE and --hook HOOK are missing; see 'fanlight replay --help'"),
    (
        "fanlight replay --in a --hook xdp",
        "replay: --hook 'xdp': unknown; use uplink-ingress, endpoint-ingress, bridge-ingress, host-egress, endpoint-egress or uplink-xdp",
    ),
    (
        "fanlight check-config a b",
        "check-config: nothing to be done with 'b'; see 'fanlight check-config --help'",
    ),
    ("fanlight completions", "completions: SHELL is missing; see 'fanlight completions --help'"),
    (
        "fanlight completions csh",
        "completions: SHELL 'csh': unknown; use bash, elvish, fish, powershell or zsh",
    ),
];

#[test]
fn words_that_cant_be_parsed_are_one_line_with_a_remedy() {
    for (line, want) in BAD {
        assert_eq!(usage(&line.replace("fanctl", "fanlight fan")), *want, "{line}");
    }
}

#[test]
fn the_definition_of_the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn called_as_fanctl_it_is_the_fan_command() {
    assert_eq!(as_fanlight(words("/usr/sbin/fanctl up -a")), words("/usr/sbin/fanctl fan up -a"));
    assert_eq!(as_fanlight(words("fanlight fan up")), words("fanlight fan up"));
}

/// A word of some command line, or any other.
fn any_word() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "fan",
        "up",
        "down",
        "show",
        "test",
        "endpoint",
        "add",
        "remove",
        "list",
        "status",
        "replay",
        "agent",
        "--json",
        "-a",
        "--in",
        "--hook",
        "--netns",
        "--address",
        "--",
        "-",
        "=",
        "manual",
        "check-config",
    ];
    prop_oneof![4 => prop::sample::select(KNOWN).prop_map(str::to_owned), 1 => any::<String>()]
}

proptest! {
    #[test]
    fn whatever_the_words_are_an_error_is_one_line(line in prop::collection::vec(any_word(), 0..6)) {
        let words: Vec<_> = std::iter::once("fanlight".to_owned()).chain(line).map(OsString::from).collect();
        if let Err(error) = parse(&words) {
            let mut told = Vec::new();
            Failure::Usage(error).report(&mut told);
            let told = String::from_utf8(told).unwrap();
            prop_assert_eq!(told.lines().count(), 1, "{}", told);
            prop_assert!(told.contains("; "), "{}", told);
        }
    }
}

#[test]
fn todays_fanctl_forms_are_the_operands_in_other_words() {
    let words = |line: &str| {
        let words: Vec<_> = line.split_whitespace().map(Into::into).collect();
        match parse(&as_fanlight(words)) {
            Ok(Parsed::Run(Cli { command: Command::Fan(args::FanCommand::Up(args)), .. })) => {
                args.words().join(" ")
            }
            Ok(Parsed::Run(Cli { command: Command::Fan(args::FanCommand::Down(args)), .. })) => {
                args.words().join(" ")
            }
            _ => panic!("{line}"),
        }
    };
    assert_eq!(
        words("fanctl up -u eth0/16 -o 250.0.0.0/8 --bridge=br0 --dhcp"),
        "250.0.0.0/8 eth0/16 dhcp bridge br0"
    );
    assert_eq!(words("fanctl up -o 250 -u eth0 egress drop"), "250 eth0 egress drop");
    assert_eq!(words("fanctl down -u default -o 250"), "250 default");
    assert_eq!(words("fanctl up 250 eth0 --dhcp"), "250 eth0 dhcp");
    assert_eq!(words("fanctl down -e"), "");
}
