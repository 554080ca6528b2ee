//! `fanlight backend add | remove | list`

use std::{io, process::ExitCode};

use hyper::Method;

use super::{
    args::{BackendAddArgs, BackendArgs, BackendCommand, BackendListArgs},
    failure::Failure,
    output::Output,
    runtime::encode,
    service::{ask, path_of},
};
use crate::serve::{Contributed, OwnBackend, paths};

pub(super) fn run(command: &BackendCommand, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    match command {
        BackendCommand::Add(BackendAddArgs { backend, weight }) => {
            let weight = weight.map(|weight| format!("?weight={weight}")).unwrap_or_default();
            let path = format!("{}{weight}", path_to(backend));
            let added: Contributed = ask("backend add", Method::PUT, &path, None)?;
            output.print(&added, print_added)?;
        }
        BackendCommand::Remove(backend) => {
            let removed: Contributed = ask("backend remove", Method::DELETE, &path_to(backend), None)?;
            output.print(&removed, print_removed)?;
        }
        BackendCommand::List(BackendListArgs { service }) => {
            let path = service.as_ref().map(|service| format!("{}/backends", path_of(service)));
            let path = path.as_deref().unwrap_or(paths::BACKENDS);
            let rows: Vec<OwnBackend> = ask("backend list", Method::GET, path, None)?;
            output.print(rows.as_slice(), print_list)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path_to(BackendArgs { service, address }: &BackendArgs) -> String {
    format!("{}/backends/{}", path_of(service), encode(&address.to_string()))
}

fn print_added(added: &Contributed, output: &mut Output<'_>) -> io::Result<()> {
    let Contributed { service, address, weight, changed } = added;
    let what = if *changed { "is a backend" } else { "is a backend as it is" };
    writeln!(output.writer, "service {service}: {address} {what}, with weight {weight}")
}

fn print_removed(removed: &Contributed, output: &mut Output<'_>) -> io::Result<()> {
    writeln!(output.writer, "service {}: {} is no backend any more", removed.service, removed.address)
}

fn print_list(rows: &[OwnBackend], output: &mut Output<'_>) -> io::Result<()> {
    let cells = rows.iter().map(|row| [row.service.clone(), row.address.to_string(), row.weight.to_string()]);
    output.table(["SERVICE", "BACKEND", "WEIGHT"], cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_list_has_the_keys_that_scripts_rely_on() {
        let row = OwnBackend { service: "web".to_owned(), address: ([250, 0, 28, 2], 80).into(), weight: 3 };
        let expected = serde_json::json!([{"service": "web", "address": "250.0.28.2:80", "weight": 3}]);
        assert_eq!(serde_json::to_value([&row]).unwrap(), expected);
        let mut out = Vec::new();
        print_list(&[row], &mut Output::new(&mut out, false)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "SERVICE  BACKEND        WEIGHT\nweb      250.0.28.2:80  3\n"
        );
    }
}
