//! `ci`: everything, step by step, with the time that each took.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ebpf_build::Place;

use crate::{
    build, clock,
    command::{Totals, cargo, run},
    lab,
    setup::{self, Scope},
    vm,
};

/// The kernels of the VM matrix.
const KERNELS: [&str; 2] = ["6.1", "6.12"];

#[derive(Default)]
struct Steps {
    took: Vec<(&'static str, Duration)>,
    totals: Totals,
}

impl Steps {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<Totals>) -> Result<()> {
        println!("\n=== {name}");
        let start = Instant::now();
        self.totals.add(work().with_context(|| format!("step `{name}` failed"))?);
        self.took.push((name, start.elapsed()));
        Ok(())
    }

    /// The closing line reads like a test runner's, for whoever adds them up.
    fn close(&self) {
        println!("\n=== time");
        for (name, took) in &self.took {
            println!("{:7.1} s  {name}", took.as_secs_f32());
        }
        let total: Duration = self.took.iter().map(|(_, took)| *took).sum();
        let Totals { passed, failed, ignored } = self.totals;
        println!(
            "\ntest result: ok. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out; \
             finished in {:.2}s",
            total.as_secs_f32()
        );
    }
}

/// All steps; `tested`: `cargo xtask test` has just passed and is left out.
pub(crate) fn ci(place: &Place, tested: bool) -> Result<()> {
    let mut steps = Steps::default();
    steps.step("setup", || setup::ensure(place, Scope::Ci, true).map(none))?;
    steps.step("format", || format(place).map(none))?;
    steps.step("lints", || lints(place).map(none))?;
    steps.step("kernel programs", || build::build_ebpf(place, false).map(none))?;
    if !tested {
        steps.step("tests", || lab::test(place, true, &[]))?;
    }
    steps.step("tests on supported kernels", || {
        let request = vm::Request { kernels: KERNELS.map(String::from).to_vec(), ..vm::Request::default() };
        vm::matrix(place, true, &request)
    })?;
    steps.step("instruction clock", || clock::check(place).map(none))?;
    steps.close();
    Ok(())
}

fn none((): ()) -> Totals {
    Totals::default()
}

fn format(place: &Place) -> Result<()> {
    run(cargo(place, "fmt").args(["--all", "--check"]))?;
    run(programs(place, "fmt").arg("--check"))
}

fn lints(place: &Place) -> Result<()> {
    run(cargo(place, "clippy").args(["--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    // For this machine's own target: lints need no BPF code, and the pinned compiler has no clippy.
    let mut clippy = programs(place, "clippy");
    clippy.args(["--quiet", "--target-dir"]).arg(place.target.join("ebpf-lints"));
    // aya-ebpf uses an unstable feature.
    run(clippy.env("RUSTC_BOOTSTRAP", "1").args(["--", "-D", "warnings"]))
}

/// A task of cargo's on the kernel programs.
fn programs(place: &Place, task: &str) -> Command {
    let mut cargo = Command::new(crate::command::cargo_program());
    cargo.current_dir(place.root.join("dataplane-ebpf")).arg(task);
    cargo
}
