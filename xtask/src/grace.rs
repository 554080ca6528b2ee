//! The kernel's grace periods, short while tests run.
//!
//! A device that goes, a namespace, a program: each waits for a grace period, and a test makes and takes down dozens. Expedited
//! ones interrupt all processors instead of waiting for them, and took a third off the time of tests that use few of them.

use std::{fs, path::Path};

/// Whether the kernel expedites grace periods: 0 or 1 (Documentation/admin-guide/kernel-parameters.txt, `rcupdate.rcu_expedited`).
const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// Short ones until this is dropped; as they were where the kernel has no switch.
#[derive(Debug)]
pub(crate) struct Short {
    former: Option<String>,
}

impl Short {
    pub(crate) fn begin() -> Self {
        let former = fs::read_to_string(Path::new(SWITCH)).ok();
        let is_set = former.is_some() && fs::write(SWITCH, "1").is_ok();
        Self { former: former.filter(|_| is_set) }
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        if let Some(former) = &self.former
            && let Err(error) = fs::write(SWITCH, former.trim())
        {
            eprintln!("{SWITCH}: {error}; it was {}", former.trim());
        }
    }
}
