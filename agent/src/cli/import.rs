//! `fanlight announce import`: the configuration of ExaBGP's healthcheck (`key = value`) or of ExaZK (YAML) as
//! `[[announce]]`.

use std::{fmt::Write as _, fs, io, path::PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;

use super::{failure::Failure, output::Output};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The file
    pub(super) file: PathBuf,
}

/// What became of a file.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Imported {
    /// `[[announce]]` in TOML.
    toml: String,
    /// What it does not say, a line each.
    left: Vec<String>,
}

/// An announcement as far as the file says it.
#[derive(Debug, Default)]
struct Draft {
    name: String,
    prefixes: Vec<String>,
    /// Keys with their TOML values, in the order of the file.
    keys: Vec<(&'static str, String)>,
    /// Keys of its check.
    check: Vec<(&'static str, String)>,
    left: Vec<String>,
}

pub(super) fn run(args: &ImportArgs, output: &mut Output<'_>) -> Result<(), Failure> {
    let what = || format!("announce import: {}", args.file.display());
    let text = fs::read_to_string(&args.file).with_context(what)?;
    let imported = import(&text).map_err(|why| anyhow!(why).context(what()))?;
    if !output.is_json() {
        for line in &imported.left {
            // Standard output is the configuration alone.
            io::Write::write_fmt(&mut io::stderr().lock(), format_args!("fanlight: not imported: {line}\n"))
                .map_err(anyhow::Error::from)?;
        }
    }
    output.print(&imported, |imported, out| out.writer.write_all(imported.toml.as_bytes()))?;
    Ok(())
}

fn import(text: &str) -> Result<Imported, String> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines().find(|line| *line != "---").ok_or("it is empty; name a file with a configuration")?;
    let is_yaml = first.split_once(':').is_some_and(|(key, _)| !key.contains('='));
    let draft = if is_yaml { exazk(lines()) } else { healthcheck(lines()) };
    if draft.prefixes.is_empty() {
        let want = "name addresses in it: 'ip = ADDRESS/LENGTH' of a healthcheck, or srv_auth_ip of ExaZK";
        return Err(format!("it has no address to announce; {want}"));
    }
    Ok(draft.finish())
}

impl Draft {
    fn string(&mut self, key: &'static str, value: &str) {
        self.keys.push((key, quoted(value)));
    }

    fn list<'v>(&mut self, key: &'static str, values: impl Iterator<Item = &'v str>) {
        let values: Vec<String> = values.map(quoted).collect();
        self.keys.push((key, format!("[{}]", values.join(", "))));
    }

    fn numbers(&mut self, key: &'static str, text: &str) {
        let words = text.split(|letter: char| !letter.is_ascii_digit()).filter(|word| !word.is_empty());
        self.keys.push((key, format!("[{}]", words.collect::<Vec<_>>().join(", "))));
    }

    fn leave(&mut self, key: &str, why: &str) {
        self.left.push(format!("{key}: {why}"));
    }

    fn finish(self) -> Imported {
        let mut toml = format!("[[announce]]\nname = {}\n", quoted(&self.name));
        let prefixes: Vec<String> = self.prefixes.iter().map(|prefix| quoted(prefix)).collect();
        // Writing to a string can't fail.
        let _ = writeln!(toml, "prefixes = [{}]", prefixes.join(", "));
        for (key, value) in &self.keys {
            let _ = writeln!(toml, "{key} = {value}");
        }
        if !self.check.is_empty() {
            let check: Vec<String> =
                self.check.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            let _ = writeln!(toml, "check = {{ {} }}", check.join(", "));
        }
        Imported { toml, left: self.left }
    }
}

/// As TOML's basic string.
fn quoted(text: &str) -> String {
    let plain: String = text.chars().filter(|letter| !letter.is_control()).collect();
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

/// An address without a length is a host's.
fn prefix(text: &str) -> String {
    match text.contains('/') {
        true => text.to_owned(),
        false if text.contains(':') => format!("{text}/128"),
        false => format!("{text}/32"),
    }
}

/// Lines of `key = value`; keys may repeat.
fn healthcheck<'l>(lines: impl Iterator<Item = &'l str>) -> Draft {
    let mut draft = Draft { name: "healthcheck".to_owned(), ..Draft::default() };
    let (mut neighbors, mut down) = (Vec::new(), "1000".to_owned());
    // Its own defaults, where ours are others.
    let mut times = [("timeout", "5"), ("rise", "3")].map(|(key, value)| (key, value.to_owned()));
    for line in lines {
        let (key, value) = line.split_once('=').map_or((line, ""), |(key, value)| (key.trim(), value.trim()));
        match key.trim_start_matches('-') {
            "name" => draft.name = value.replace(' ', "-"),
            "ip" => draft.prefixes.push(prefix(value)),
            "neighbor" => neighbors.push(value),
            "withdraw-on-down" => down = "\"withdraw\"".to_owned(),
            "down-metric" if down.starts_with('"') => {}
            "down-metric" => down = value.to_owned(),
            "timeout" => times[0].1 = value.to_owned(),
            "rise" => times[1].1 = value.to_owned(),
            key => healthcheck_key(&mut draft, key, value),
        }
    }
    if !neighbors.is_empty() {
        draft.list("peers", neighbors.into_iter());
    }
    if draft.check.iter().any(|(key, _)| *key == "kind") {
        let [(_, timeout), (_, rise)] = times;
        draft.check.push(("timeout", seconds(&timeout)));
        draft.check.push(("rise", rise));
        draft.keys.push(("on-down", down));
    } else {
        // Without a command its process never is down.
        draft.check.clear();
        draft.keys.retain(|(key, _)| !["down-as-path", "execute.down"].contains(key));
    }
    // What its processes take from the options' defaults.
    for (key, default) in [("on-disabled", "500"), ("med", "100")] {
        if draft.keys.iter().all(|(own, _)| *own != key) {
            draft.keys.insert(0, (key, default.to_owned()));
        }
    }
    draft
}

/// Seconds as a length of time.
fn seconds(text: &str) -> String {
    quoted(&format!("{text}s"))
}

fn healthcheck_key(draft: &mut Draft, key: &str, value: &str) {
    const HOOK: &str = "a command for all states: put it into up, down and disabled of execute";
    const LABEL: &str = "list the addresses as ip";
    match key {
        "up-metric" => draft.keys.push(("med", value.to_owned())),
        "disabled-metric" => draft.keys.push(("on-disabled", value.to_owned())),
        "increase" => draft.keys.push(("med-step", value.to_owned())),
        "start-ip" => draft.keys.push(("start", value.to_owned())),
        "local-preference" if value == "-1" => {}
        "local-preference" => draft.keys.push(("local-preference", value.to_owned())),
        "next-hop" => draft.string("next-hop", value),
        "disable" => draft.string("disable-file", value),
        "community" => draft.list("communities", value.split_whitespace()),
        "disabled-community" => draft.list("disabled-communities", value.split_whitespace()),
        "large-community" => draft.list("large-communities", value.split_whitespace()),
        "extended-community" => {
            let short = value.replace("target:", "rt:").replace("origin:", "soo:");
            draft.list("extended-communities", short.split_whitespace());
        }
        "as-path" | "up-as-path" => draft.numbers("as-path", value),
        "disabled-as-path" => draft.numbers("disabled-as-path", value),
        "down-as-path" => draft.numbers("down-as-path", value),
        "command" => draft.check.extend([("kind", quoted("command")), ("command", quoted(value))]),
        "interval" => draft.check.push(("interval", seconds(value))),
        "fast-interval" => draft.check.push(("fast-interval", seconds(value))),
        "fall" => draft.check.push(("fall", value.to_owned())),
        "up-execute" => draft.string("execute.up", value),
        "disabled-execute" => draft.string("execute.disabled", value),
        "down-execute" => draft.string("execute.down", value),
        "execute" => draft.leave(key, HOOK),
        "dynamic-ip-setup" => draft.string("setup", "lo"),
        "ip-ifname" | "label" | "label-exact-match" => draft.leave(key, LABEL),
        "path-id" => draft.leave(key, "there is one path for each prefix"),
        "deaggregate-networks" => draft.leave(key, "list the addresses one by one"),
        // How its process runs, which an agent has not.
        "no-ip-setup" | "debounce" | "silent" | "syslog-facility" | "no-syslog" | "debug" | "no-ack"
        | "pid" | "user" | "group" | "sudo" | "config" => {}
        _ => draft.leave(key, "is no option of ExaBGP's healthcheck"),
    }
}

/// Lines of `key: value`, and of `- value` below a key.
fn exazk<'l>(lines: impl Iterator<Item = &'l str>) -> Draft {
    const ZOOKEEPER: &str =
        "members come from [cluster], not from ZooKeeper: see own and group in docs/announce.md";
    let mut draft = Draft { name: "exazk".to_owned(), ..Draft::default() };
    let mut above = String::new();
    for line in lines.filter(|line| *line != "---") {
        let (key, value) = match line.strip_prefix('-') {
            Some(value) => (above.clone(), value.trim()),
            None => line
                .split_once(':')
                .map_or((line.to_owned(), ""), |(key, value)| (key.trim().to_owned(), value.trim())),
        };
        above.clone_from(&key);
        let value = value.trim_matches(['"', '\'']);
        match (&*key, value) {
            // A list begins.
            (_, "") => {}
            ("srv_name", name) => draft.name = name.replace(' ', "-"),
            ("srv_auth_ip", address) => draft.prefixes.push(prefix(address)),
            ("srv_non_auth_ips", address) => {
                draft.leave(&format!("{key} {address}"), "takeover by own and group: see docs/announce.md");
            }
            ("local_check", check) => {
                draft.check.extend([("kind", quoted("command")), ("command", quoted(check))]);
            }
            ("zk_hosts" | "zk_path_service" | "zk_path_maintenance", _) => draft.leave(&key, ZOOKEEPER),
            ("debug" | "silent" | "syslog" | "syslog_facility", _) => {}
            _ => draft.leave(&key, "is no key of ExaZK"),
        }
    }
    // As ExaZK announces what is its own.
    draft.keys.push(("med", "100".to_owned()));
    draft
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthcheck_becomes_an_announcement_and_the_rest_is_named() {
        let text = "# apex\nname = apex\ncommand = curl -sf http://127.0.0.1/\nip = 192.0.2.1/32\nip = 2001:db8::1\n\
                    up-metric = 50\nincrease = 0\nstart-ip = 1\nwithdraw-on-down\ncommunity = 65001:1 65001:2\n\
                    extended-community = target:65001:5\nas-path = [ 65001 65002 ]\ndisable = /etc/down\n\
                    up-execute = logger up\ndynamic-ip-setup\n\
                    neighbor = 192.0.2.9\ndebounce\nfast = 1\n";
        let Imported { toml, left } = import(text).unwrap();
        assert_eq!(
            toml,
            "[[announce]]\nname = \"apex\"\nprefixes = [\"192.0.2.1/32\", \"2001:db8::1/128\"]\n\
             on-disabled = 500\nmed = 50\nmed-step = 0\nstart = 1\ncommunities = [\"65001:1\", \"65001:2\"]\n\
             extended-communities = [\"rt:65001:5\"]\nas-path = [65001, 65002]\ndisable-file = \"/etc/down\"\nexecute.up = \"logger up\"\nsetup = \"lo\"\n\
             peers = [\"192.0.2.9\"]\non-down = \"withdraw\"\n\
             check = { kind = \"command\", command = \"curl -sf http://127.0.0.1/\", timeout = \"5s\", rise = 3 }\n"
        );
        let left: Vec<&str> = left.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(left, ["fast"]);
    }

    #[test]
    fn exazk_becomes_an_announcement_of_its_own_address() {
        let text = "---\nzk_hosts:\n  - 'zk1:2181'\nsrv_name: lb\nsrv_auth_ip: 192.0.2.1\n\
                    srv_non_auth_ips:\n  - 192.0.2.2\n";
        let Imported { toml, left } = import(text).unwrap();
        assert_eq!(toml, "[[announce]]\nname = \"lb\"\nprefixes = [\"192.0.2.1/32\"]\nmed = 100\n");
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left[1].starts_with("srv_non_auth_ips 192.0.2.2: takeover"), "{left:?}");
    }

    #[test]
    fn a_file_without_addresses_is_refused_and_no_value_leaves_its_quotes() {
        assert!(import("").unwrap_err().contains("it is empty"));
        assert!(import("name = x\n").unwrap_err().contains("no address to announce"));
        let toml = import("name = a\"b\\c\nip = 192.0.2.1\n").unwrap().toml;
        assert!(toml.contains("name = \"a\\\"b\\\\c\"\n"), "{toml}");
    }
}
