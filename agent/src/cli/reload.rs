//! `fanlight reload`

use std::{io, process::ExitCode};

use hyper::Method;

use super::{failure::Failure, output::Output, runtime};
use crate::serve::{Client, ClientError, Reloaded, paths};

pub(super) fn run(output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    let answer: Result<Reloaded, ClientError> = runtime::block_on(async {
        Ok(match Client::connect().await {
            Ok(mut client) => client.call(Method::POST, paths::RELOAD, None).await,
            Err(error) => Err(error),
        })
    })?;
    match answer {
        Ok(reloaded) => output.print(&reloaded, print)?,
        Err(ClientError::Refused(problems)) => {
            let lines = problems.iter().map(|problem| format!("reload: {problem}"));
            return Err(Failure::Many(lines.collect()));
        }
        Err(error) => return Err(anyhow::Error::from(error).context("reload").into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(reloaded: &Reloaded, output: &mut Output<'_>) -> io::Result<()> {
    let Reloaded { changed, fans, services } = reloaded;
    let what = if *changed { "the configuration is taken over" } else { "nothing has changed" };
    let count = |count, name| if count == 1 { format!("1 {name}") } else { format!("{count} {name}s") };
    writeln!(output.writer, "{what}: {}, {}", count(*fans, "fan"), count(*services, "service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_over_is_counted() {
        let printed = |changed, fans, services| {
            let mut out = Vec::new();
            print(&Reloaded { changed, fans, services }, &mut Output::new(&mut out, false)).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(printed(true, 1, 2), "the configuration is taken over: 1 fan, 2 services\n");
        assert_eq!(printed(false, 0, 1), "nothing has changed: 0 fans, 1 service\n");
    }
}
