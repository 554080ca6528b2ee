//! What the kernel tells of, between passes.

use std::time::Instant;

use super::{Concern, Worker};
use crate::{kernel::netlink, node::writer::events::KernelEvent};

impl Worker {
    /// Notes what an event of the kernel's concerns.
    pub(super) async fn note(&mut self, event: &KernelEvent) {
        match event {
            KernelEvent::Network(event) => {
                if let netlink::Event::LinkGone(link) = event
                    && self.endpoints.presence.lose(|device| device == link.index)
                {
                    // The rings follow by an order.
                    self.publish();
                }
                self.changed(self.known.concern(event));
                let behind = (&*self.known.fans, &*self.known.uplink_indices);
                self.silent.note(event, behind, self.programs.datapath(), self.node.netlink()).await;
            }
            KernelEvent::Filter => {
                self.filters.note();
                self.changed(Concern::Fans);
            }
            KernelEvent::Rules => {
                self.filters.note();
                self.look_at_rules();
            }
            KernelEvent::Path => {
                self.concern = self.concern.max(Concern::Endpoints);
                self.pace.urgent(Instant::now());
            }
            KernelEvent::Lost => {
                self.programs.unfollow();
                self.concern = Concern::Fans;
                // It may break again at once.
                self.pace.passed(Instant::now(), true, true);
            }
        }
    }

    /// Has a pass look at changed rules, in time.
    pub(super) fn look_at_rules(&mut self) {
        if let Some(next) = self.filters.next_look() {
            self.concern = self.concern.max(Concern::Endpoints);
            self.pace.by(Some(next.max(Instant::now())));
        }
    }

    pub(super) fn changed(&mut self, concern: Concern) {
        if concern > Concern::Nothing {
            self.concern = self.concern.max(concern);
            self.pace.changed(Instant::now());
        }
    }
}
