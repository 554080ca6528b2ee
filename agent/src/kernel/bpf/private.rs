//! Programs with maps of their own, attached nowhere: for replay, tests and benchmarks.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    time::Duration,
};

use aya::{Ebpf, programs::Program};
use nix::ifaddrs::getifaddrs;

use super::{
    ConfigMap, EndpointMap, PathMap, ServiceMap, UplinkMap,
    counters::CounterMap,
    error::{Context as _, Error, Result},
    flow_maps::FlowMaps,
    object,
    resize::Resizer,
    sys,
    tables::Tables,
};

/// What the kernel takes beside a frame, by its place in `struct __sk_buff` of `linux/bpf.h`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// The mark.
    pub mark: u32,
    /// The interface that it comes in by; 0: none.
    pub ifindex: u32,
    /// Packets that a super-packet stands for.
    pub gso_segs: u32,
    /// Bytes of payload in each; 0: it is a single packet.
    pub gso_size: u32,
}

impl Context {
    const WORDS: usize = 48;
    const MARK: usize = 2;
    const IFINDEX: usize = 10;
    const CONTROL: usize = 12;
    const GSO_SEGS: usize = 41;
    const GSO_SIZE: usize = 44;

    fn words(self, length: usize) -> [u32; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        words[Self::MARK] = self.mark;
        words[Self::IFINDEX] = self.ifindex;
        words[Self::CONTROL] = length as u32;
        words[Self::GSO_SEGS] = self.gso_segs;
        words[Self::GSO_SIZE] = self.gso_size;
        words
    }
}

/// One run of a program on one frame.
#[derive(Clone, Debug)]
pub struct TestRun {
    /// What the program returned: a `TC_ACT_` value, or an XDP action.
    pub action: i32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// How long the program ran.
    pub duration: Duration,
}

/// Programs and maps that only this value refers to.
pub struct Private {
    ebpf: Ebpf,
    tables: Tables,
    resizers: Vec<(String, Resizer)>,
}

impl Private {
    pub(super) fn open(programs: &[&str]) -> Result<Self> {
        let mut ebpf = object::create_maps(None)?;
        let tables = FlowMaps::private(&ebpf)?.tables(&ebpf)?;
        object::load_stages(&mut ebpf)?;
        let mut resizers = Vec::new();
        for &name in programs {
            let program = object::load_program(&mut ebpf, name)?;
            let fd = program.fd().map_err(Error::program(name))?;
            if let Program::SchedClassifier(_) = program {
                resizers.push((name.to_owned(), Resizer::new(fd.as_fd())?));
            }
        }
        tables.config.initialise();
        Ok(Self { ebpf, tables, resizers })
    }

    /// Fans and devices.
    pub fn config(&self) -> &ConfigMap {
        &self.tables.config
    }

    /// Uplinks.
    pub fn uplinks(&self) -> &UplinkMap {
        &self.tables.uplinks
    }

    /// Endpoints.
    pub fn endpoints(&self) -> &EndpointMap {
        &self.tables.endpoints
    }

    /// Services.
    pub fn services(&self) -> &ServiceMap {
        &self.tables.services
    }

    /// Path MTUs learnt.
    pub fn paths(&self) -> &PathMap {
        &self.tables.paths
    }

    pub(crate) fn counter_map(&self) -> &CounterMap {
        &self.tables.counters
    }

    /// How many instructions the verifier walked through a program, a stage's too.
    pub fn verified_instructions(&self, name: &str) -> Result<Option<u32>> {
        let info = self.program(name)?.info().map_err(Error::program(name))?;
        Ok(info.verified_instruction_count())
    }

    /// Runs a program once on a frame (BPF_PROG_TEST_RUN). Redirections only show as the returned action.
    pub fn run(&self, name: &str, frame: &[u8], context: Context) -> Result<TestRun> {
        /// More than any program adds.
        const ROOM: usize = 256;
        let mut output = vec![0; frame.len() + ROOM];
        let context = context.words(frame.len());
        let run = match Resizer::handed_over(frame) {
            Some(handed) => sys::test_run(self.resizer(name)?, &handed, &context, &mut output),
            None => {
                let program = self.program(name)?.fd().map_err(Error::program(name))?;
                sys::test_run(program.as_fd(), frame, &context, &mut output)
            }
        };
        let run = run.during(|| format!("running {name}"))?;
        output.truncate(run.length);
        if run.result == Resizer::REFUSED {
            return Err(Error::Frame(frame.len()));
        }
        Resizer::restore_tail(frame, &mut output);
        Ok(TestRun { action: run.result, frame: output, duration: run.duration })
    }

    /// The same of an XDP program. It runs on the loopback device, the only one that every kernel takes there, as if that
    /// had the MAC address of another one.
    pub(crate) fn run_early(&self, name: &str, frame: &[u8], ifindex: Option<u32>) -> Result<TestRun> {
        const LOOPBACK: u32 = 1;
        let mac = mac_of(ifindex.unwrap_or(LOOPBACK)).during(|| "reading a MAC address".to_owned())?;
        self.tables.uplinks.put(LOOPBACK, mac);
        let mut output = vec![0; frame.len()];
        let program = self.program(name)?.fd().map_err(Error::program(name))?;
        let run =
            sys::test_run(program.as_fd(), frame, &[], &mut output).during(|| format!("running {name}"))?;
        output.truncate(run.length);
        Ok(TestRun { action: run.result, frame: output, duration: run.duration })
    }

    fn resizer(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let found = self.resizers.iter().find(|(program, _)| program == name);
        let (_, resizer) = found.ok_or_else(|| Error::Object { what: format!("program {name}") })?;
        Ok(resizer.program())
    }

    fn program(&self, name: &str) -> Result<&Program> {
        self.ebpf.program(name).ok_or_else(|| Error::Object { what: format!("program {name}") })
    }
}

/// The MAC address of an interface, of zeros where it has none.
fn mac_of(ifindex: u32) -> nix::Result<[u8; 6]> {
    let own = getifaddrs()?.find_map(|interface| {
        let address = interface.address?;
        let link = address.as_link_addr()?;
        if link.ifindex() == ifindex as usize { link.addr() } else { None }
    });
    Ok(own.unwrap_or_default())
}
