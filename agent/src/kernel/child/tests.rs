use std::fs;

use super::*;

const LONG: Duration = Duration::from_secs(30);

fn sh(script: &str, input: &str, limit: Duration) -> Result<Output, ChildError> {
    run("sh", &["-c", script], input, limit)
}

#[test]
fn a_child_that_does_not_end_is_killed_with_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let start = Instant::now();
    let error =
        sh(&format!("sleep 1000 & echo $! > {}; wait", pid.display()), "", Duration::from_millis(300));
    let error = error.unwrap_err().to_string();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(error.starts_with("`sh -c sleep 1000") && error.contains("did not end within 0.3 s"), "{error}");
    let pid = fs::read_to_string(pid).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

#[test]
fn what_a_child_left_behind_is_not_waited_for() {
    let start = Instant::now();
    let output = sh("setsid sleep 5 & echo done", "", LONG).unwrap();
    assert_eq!(output.text(), "done\n");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn more_than_pipes_hold_goes_in_and_out_at_once() {
    let input = "0123456789abcde\n".repeat(40_000);
    let output = sh("tee /dev/stderr", &input, LONG).unwrap();
    assert!(output.is_success());
    assert_eq!((output.text().len(), output.stderr.len()), (input.len(), input.len()));
}

#[test]
fn a_child_that_reads_nothing_is_told_by_its_status() {
    let output = sh("echo first >&2; echo second >&2; exit 3", &"x".repeat(1 << 20), LONG).unwrap();
    assert_eq!((output.status.code(), output.complaint().as_str()), (Some(3), "first"));
}

#[test]
fn output_has_a_bound() {
    let error = run("cat", &["/dev/zero"], "", LONG).unwrap_err().to_string();
    assert_eq!(error, "`cat /dev/zero` wrote more than 64 MiB and was killed");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let error = run("no-such-program", &[], "", LONG).unwrap_err();
    assert!(error.is_missing() && error.to_string().starts_with("`no-such-program` could not be run: "));
}
