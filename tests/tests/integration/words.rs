//! Bad command lines and configurations: one line that says what is wrong and what would be right, exit status 2
//! for words that can't be parsed and 1 for what is impossible here, and no state changed.

use fanlight_tests::{Host, fleet::Fleet};

/// Runs it; checks status, form and that nothing changed.
fn refused(host: &Host, words: &str, status: i32, says: &str) {
    let state = || [host.ip("-o link show"), host.ip("route show"), host.sh("nft list ruleset")].join("\n");
    let before = state();
    let output = host.fanlight(words.split_whitespace()).run();
    assert_eq!(output.code(), status, "{output}");
    assert_eq!(output.stdout, "", "{output}");
    let lines: Vec<_> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{output}");
    assert!(lines[0].starts_with("fanlight: "), "{output}");
    assert!(lines[0].contains(says), "it does not say '{says}': {output}");
    assert_eq!(state(), before, "{output}");
}

#[test]
fn words_that_cannot_be_parsed_exit_with_2() {
    let fleet = Fleet::bare(1);
    for (words, says) in [
        ("fan upp 250.0.0.0/8 eth0", "up"),
        ("fan up", "OVERLAY"),
        ("fan up 250.0.0.0/8", "underlay"),
        ("fan up 250.0.0/8 eth0", "250.0.0/8"),
        ("fan up 300 eth0", "300"),
        ("fan up 250.0.0.0/8 eth0 egress maybe", "masquerade"),
        ("fan up 250.0.0.0/8 eth0 host-reserve many", "many"),
        ("fan up 250.0.0.0/8 eth0 bridge", "bridge"),
        ("fan up 250.0.0.0/8 eth0 bridg br0", "bridge"),
        ("endpoint add", "--netns"),
        ("endpoint add --netns c --adress 250.0.27.2", "--address"),
        ("endpoint remove", "NAME"),
        ("statsu", "status"),
        ("agent --confg x", "--config"),
        ("replay --hook uplink-ingress", "--in"),
    ] {
        refused(&fleet[0], words, 2, says);
    }
}

#[test]
fn what_is_contradictory_or_impossible_here_exits_with_1() {
    let fleet = Fleet::bare(1);
    for (words, says) in [
        ("fan up 250.0.0.1/8 eth0", "250.0.0.0/8"),
        ("fan up 250.0.0.0/16 172.30.0.0/16", "/16"),
        ("fan up 250.0.0.0/20 172.30.0.0/16", "/16"),
        ("fan up 127.0.0.0/8 eth0", "127.0.0.0/8"),
        ("fan up 224.0.0.0/4 eth0", "224.0.0.0/4"),
        ("fan up 250.0.0.0/8 10.0.0.0/16", "10.0.0.0/16"),
        ("fan up 250.0.0.0/8 172.30.0.9/16", "172.30.0.9"),
        ("fan up 250.0.0.0/8 eth9", "eth9"),
        ("fan up 250.0.0.0/8 default", "default"),
        ("fan up 172.0.0.0/8 eth0", "172"),
        ("fan up 250.0.0.0/8 eth0 encap vxlan", "vxlan"),
        ("fan up 250.0.0.0/8 eth0 host-reserve 500", "500"),
        ("fan up 250.0.0.0/8 eth0 bridge lo", "lo"),
        ("fan up 250.0.0.0/8 eth0 bridge eth0", "eth0"),
        ("fan down 250.0.0.0/8 eth0", "not up"),
        ("endpoint add --netns nowhere", "nowhere"),
        ("endpoint remove nobody", "nobody"),
        ("fan test 10.0.0.1", "10.0.0.1"),
        ("replay --in /nonexistent --hook uplink-ingress", "/nonexistent"),
        ("agent --config /nonexistent", "/nonexistent"),
    ] {
        refused(&fleet[0], words, 1, says);
    }
}

#[test]
fn overlapping_overlays_are_refused() {
    let fleet = Fleet::up(1);
    for overlay in ["250.0.0.0/9", "248.0.0.0/5"] {
        refused(&fleet[0], &format!("fan up {overlay} eth0"), 1, "250.0.0.0/8");
    }
}

#[test]
fn a_bad_configuration_is_named_by_file_line_and_key() {
    let fleet = Fleet::bare(1);
    for (text, says) in [
        ("[node]\nnmae = \"x\"\n", "name"),
        ("[[fan]]\noverlay = 250\n", "overlay"),
        ("[[fan]]\noverlay = \"250.0.0.0/8\"\negress = \"maybe\"\n", "masquerade"),
        ("[[fan]]\noverlay = \"250.0.0.0/8\"\n[[fan]]\noverlay = \"250.1.0.0/16\"\n", "250.0.0.0/8"),
        ("[datapath]\nuplink-hook = \"ebpf\"\n", "use auto, xdp or tc"),
        ("[cluster]\nname = \"prod\"\n", "keys: is missing"),
        ("[[source]]\nkind = \"directory\"\n", "path"),
        ("[datapath]\nrewrite = \"packet\"\n", "not supported"),
        ("[node\n", "fanlight.toml:1"),
    ] {
        fleet[0].write("/etc/fanlight/fanlight.toml", text);
        refused(&fleet[0], "check-config", 1, says);
        refused(&fleet[0], "agent", 1, "/etc/fanlight/fanlight.toml");
    }
    fleet[0].write("/etc/fanlight/fanlight.toml", "[[fan]]\noverlay = \"250.0.0.0/8\"\n");
    fleet[0].run("check-config");
}

#[test]
fn commands_of_later_versions_are_refused() {
    let fleet = Fleet::bare(1);
    for words in ["service list", "node list", "kv list", "flow list", "backend list"] {
        let output = fleet[0].fanlight(words.split(' ')).run();
        assert!([1, 2].contains(&output.code()), "{output}");
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
    }
}

#[test]
fn show_and_list_of_nothing_succeed() {
    let fleet = Fleet::bare(1);
    for words in ["fan show", "endpoint list"] {
        assert_eq!(fleet[0].json(words), serde_json::json!([]), "{words}");
        fleet[0].run(words);
    }
}

#[test]
fn called_as_fanctl_it_takes_fanctls_verbs() {
    let fleet = Fleet::bare(1);
    let binary = fanlight_tests::host::binary();
    fleet[0].command("ln").arg("-s").arg(binary).arg("/run/fanctl").ok();
    fleet[0].sh("/run/fanctl up 250 eth0/16 host-reserve 4");
    let shown = fleet[0].sh("/run/fanctl show");
    assert!(shown.contains("fan-250-0-27") && shown.contains("250.0.0.0/8"), "{shown}");
    fleet[0].sh("/run/fanctl down 250 eth0/16");
}
