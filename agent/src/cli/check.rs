//! `fanlight check SERVICE [BACKEND]`

use std::{io, net::SocketAddr, process::ExitCode};

use clap::Args;
use hyper::Method;

use super::{
    failure::Failure,
    output::Output,
    service::{ask, parse_backend, path_of},
};
use crate::serve::CheckedRow;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The service
    pub(super) service: String,
    /// One of its backends, as ADDRESS:PORT; without it all of them
    #[arg(value_parser = parse_backend)]
    pub(super) backend: Option<SocketAddr>,
}

pub(super) fn run(args: &CheckArgs, output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let query = args.backend.map(|backend| format!("?backend={backend}")).unwrap_or_default();
    let path = format!("{}/check{query}", path_of(&args.service));
    let rows: Vec<CheckedRow> = ask("check", Method::POST, &path, None)?;
    output.print(rows.as_slice(), print)?;
    let all_pass = rows.iter().all(|row| row.passed);
    Ok(if all_pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(rows: &[CheckedRow], output: &mut Output<'_>) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let result = if row.passed { "passed" } else { "failed" };
        let seen = row.reason.escape_debug().to_string();
        [row.backend.to_string(), result.to_owned(), format!("{} ms", row.ms), seen]
    });
    output.table(["BACKEND", "RESULT", "TIME", "SEEN"], cells)?;
    for row in rows {
        let written = row.output.as_deref().map(str::trim_end).filter(|text| !text.is_empty());
        let Some(written) = written else { continue };
        writeln!(output.writer, "\n{} wrote:", row.backend)?;
        written.lines().try_for_each(|line| writeln!(output.writer, "  {}", line.escape_debug()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_is_a_line_and_what_programs_wrote_follows() {
        let row = |last, passed, reason: &str, output: Option<&str>| CheckedRow {
            backend: ([250, 0, 28, last], 80).into(),
            passed,
            reason: reason.to_owned(),
            ms: 1.5,
            output: output.map(str::to_owned),
        };
        let rows =
            [row(2, true, "exit status 0", Some("")), row(3, false, "exit status 1", Some("no\tdisk\n"))];
        let mut out = Vec::new();
        print(&rows, &mut Output::new(&mut out, false)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "BACKEND        RESULT  TIME    SEEN\n\
             250.0.28.2:80  passed  1.5 ms  exit status 0\n\
             250.0.28.3:80  failed  1.5 ms  exit status 1\n\
             \n\
             250.0.28.3:80 wrote:\n  no\\tdisk\n"
        );
    }
}
