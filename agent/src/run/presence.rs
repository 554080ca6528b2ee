//! Services follow the presence of local backends.

use std::{collections::BTreeSet, time::Instant};

use super::{
    agent::Agent,
    services::{Services, is_refused},
};
use crate::kernel::bpf::Datapath;

impl Agent {
    /// Takes the backends on a device that has gone out of rotation, at once.
    pub(super) fn lose_device(&mut self, index: u32) {
        if self.presence.lose(|device| device == index) {
            self.follow_presence();
        }
    }

    /// Brings the services to who is there; the rest of the work is left to the next look.
    pub(super) fn follow_presence(&mut self) {
        let names = self.services.book.set_absent(self.presence.absent());
        if names.is_empty() {
            return;
        }
        tracing::info!("services {names:?}: local backends changed");
        if let Some(datapath) = &self.datapath {
            self.services.follow(datapath, &names);
        }
        self.pace.changed(Instant::now());
    }
}

impl Services {
    /// Makes the kernel follow services whose wanted backends changed by themselves.
    fn follow(&mut self, datapath: &Datapath, names: &BTreeSet<String>) {
        let is_served =
            |name: &&String| self.book.get(name).is_some_and(|entry| !is_refused(&entry.wanted, &self.taken));
        let names: BTreeSet<String> = names.iter().filter(is_served).cloned().collect();
        let mut reasons = Vec::new();
        self.apply_some(datapath, &[], &names, &mut reasons);
        // What failed, and services that are not served at present, are the next look's.
        self.is_open |= !reasons.is_empty() || !self.has_writer();
        self.is_untold = true;
    }
}
