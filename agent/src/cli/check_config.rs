//! `fanlight check-config [FILE]`

use std::{path::Path, process::ExitCode};

use control::model::PortRange;
use serde::Serialize;

use super::{args::CheckConfigArgs, failure::Failure, output::Output};
use crate::{
    inspect::status::host_name,
    kernel::reserved_ports,
    sources::{
        config::{self, FANS_FILE, SourceSpec},
        directory,
        followed::{Followed, News},
    },
};

/// What a configuration that is right asks for.
#[derive(Serialize)]
struct Report {
    file: String,
    fans: usize,
    services: usize,
}

pub(super) fn run(args: &CheckConfigArgs, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    check(&args.file, Path::new(FANS_FILE), output)
}

fn check(file: &Path, fans: &Path, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let sources = config::load(file, fans)?;
    if let Ok(host) = host_name() {
        sources.check_name(file, &host)?;
    }
    // On a host without such a setting the agent shows the mistakes.
    if let Ok((first, last)) = reserved_ports::local() {
        sources.check_beside(file, PortRange(first, last))?;
    }
    let bad: Vec<String> = config::bad_lines(fans, &sources.lines).iter().map(ToString::to_string).collect();
    if !bad.is_empty() {
        return Err(Failure::Many(bad));
    }
    let (listed, bad) = listed(&sources);
    if !bad.is_empty() {
        return Err(Failure::Many(bad));
    }
    let (fans, services) = (sources.fans().len(), sources.config.services.len() + listed);
    let report = Report { file: file.display().to_string(), fans, services };
    output.print(&report, |report, out| {
        let of = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let (fans, services) = (of(report.fans, "fan"), of(report.services, "service"));
        writeln!(out.writer, "{}: valid, {fans}, {services}", report.file)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// How many services the listed sources define, as far as they are here, and what is wrong in them.
fn listed(sources: &config::Sources) -> (usize, Vec<String>) {
    let overlays: Vec<_> = sources.fans().into_iter().map(|(spec, _)| spec.overlay).collect();
    let (mut services, mut bad) = (0, Vec::new());
    for spec in &sources.config.sources {
        let SourceSpec::Directory(path) = spec;
        // What is here may be no host's: one that lacks the directory shows it.
        let Ok(parts) = directory::read(path) else { continue };
        let mut followed = Followed::new(spec.clone(), false);
        followed.follow(News::Snapshot(parts), &overlays);
        services += followed.names().count();
        bad.extend(followed.problems().iter().map(ToString::to_string));
    }
    (services, bad)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn checked(config: &str, fans: &str, json: bool) -> Result<String, Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let (config_path, fans_path) = (folder.path().join("fanlight.toml"), folder.path().join("fans"));
        fs::write(&config_path, config).unwrap();
        fs::write(&fans_path, fans).unwrap();
        let folder = format!("{}/", folder.path().display());
        let mut out = Vec::new();
        match check(&config_path, &fans_path, &mut Output::new(&mut out, json)) {
            Ok(_) => Ok(String::from_utf8(out).unwrap().replace(&folder, "")),
            Err(Failure::Many(lines)) => Err(lines.iter().map(|line| line.replace(&folder, "")).collect()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_valid_configuration_is_counted() {
        let config = "[[fan]]\noverlay = '250'\n";
        let service = "[[service]]\nname = 'web'\nvip = '10.96.0.10:80/tcp'\nbackends = []\n";
        assert_eq!(
            checked(config, "251 eth0\n", false).unwrap(),
            "fanlight.toml: valid, 2 fans, 0 services\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&checked(&format!("{config}{service}"), "", true).unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({"file": "fanlight.toml", "fans": 1, "services": 1}));
    }

    #[test]
    fn files_of_a_directory_that_is_here_are_checked_too() {
        let folder = tempfile::tempdir().unwrap();
        let of = |path: &Path| format!("[[source]]\nkind = 'directory'\npath = '{}'\n", path.display());
        let service = |vip: &str| format!("[[service]]\nname = 'web'\nvip = '{vip}'\nbackends = []\n");
        let missing = of(&folder.path().join("missing"));
        assert_eq!(checked(&missing, "", false).unwrap(), "fanlight.toml: valid, 0 fans, 0 services\n");
        let file = folder.path().join("web.toml");
        fs::write(&file, service("10.96.0.10:80/tcp")).unwrap();
        let counted = checked(&of(folder.path()), "250 eth0\n", false).unwrap();
        assert_eq!(counted, "fanlight.toml: valid, 1 fan, 1 service\n");
        fs::write(&file, service("250.0.0.10:80/tcp")).unwrap();
        assert_eq!(
            checked(&of(folder.path()), "250 eth0\n", false).unwrap_err(),
            [format!(
                "{}:3: service.vip: 250.0.0.10 lies in overlay 250.0.0.0/8; give an unused address",
                file.display()
            )]
        );
    }

    #[test]
    fn every_mistake_of_either_file_has_its_line() {
        assert_eq!(
            checked("[node]\nnam = 'a'\n[api]\ntoken-file = '/x'\n", "", false).unwrap_err(),
            [
                "fanlight.toml:2: node.nam: unknown key; did you mean 'name'?",
                "fanlight.toml:4: api.token-file: not supported by this version; remove it",
            ]
        );
        assert_eq!(
            checked("", "250 eth0 dhpc\n", false).unwrap_err(),
            ["fans:1: 'dhpc' is no flag of a fan; did you mean 'dhcp'?"]
        );
    }
}
