//! `fanlight check-config [FILE]`

use std::{path::Path, process::ExitCode};

use control::model::PortRange;
use serde::Serialize;

use super::{args::CheckConfigArgs, failure::Failure, output::Output};
use crate::{
    kernel::reserved_ports,
    sources::config::{self, FANS_FILE},
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
    // On a host without such a setting the agent shows the mistakes.
    if let Ok((first, last)) = reserved_ports::local() {
        sources.check_beside(file, PortRange(first, last))?;
    }
    let bad: Vec<String> = config::bad_lines(fans, &sources.lines).iter().map(ToString::to_string).collect();
    if !bad.is_empty() {
        return Err(Failure::Many(bad));
    }
    let (fans, services) = (sources.fans().len(), sources.config.services.len());
    let report = Report { file: file.display().to_string(), fans, services };
    output.print(&report, |report, out| {
        let of = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let (fans, services) = (of(report.fans, "fan"), of(report.services, "service"));
        writeln!(out.writer, "{}: valid, {fans}, {services}", report.file)
    })?;
    Ok(ExitCode::SUCCESS)
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
    fn every_mistake_of_either_file_has_its_line() {
        assert_eq!(
            checked("[node]\nnam = 'a'\n[api]\nlisten = '127.0.0.1:7480'\n", "", false).unwrap_err(),
            [
                "fanlight.toml:2: node.nam: unknown key; did you mean 'name'?",
                "fanlight.toml:4: api.listen: not supported by this version; remove it",
            ]
        );
        assert_eq!(
            checked("", "250 eth0 dhpc\n", false).unwrap_err(),
            ["fans:1: 'dhpc' is no flag of a fan; did you mean 'dhcp'?"]
        );
    }
}
