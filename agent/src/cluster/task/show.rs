//! What readers are shown of the cluster, made now and then.

use std::{sync::Arc, time::Duration};

use super::Task;
use crate::cluster::view::{MemberView, View};

/// Views are made at most this often when something was told..
const SOON: Duration = Duration::from_millis(20);
/// ..and else as often as this: suspicions are not told.
const LATER: Duration = Duration::from_millis(500);

impl Task<'_> {
    pub(super) fn view_soon(&mut self) {
        self.view_at = self.view_at.min(self.viewed_at + SOON);
    }

    /// Makes another view, if there is anything new.
    pub(super) fn show(&mut self) {
        self.forget_marked();
        let now = self.now();
        (self.viewed_at, self.view_at) = (now, now + LATER);
        self.stand();
        let own = &self.inbox.settings.node;
        let members: Vec<MemberView> =
            self.core.members().iter().map(|member| MemberView::new(member, self.start, own)).collect();
        let reasons = self.reasons(&members, now);
        let cluster = self.inbox.settings.config.name.as_str().into();
        let view = View { cluster, members: members.into(), reasons };
        self.inbox.view.send_if_modified(|former| {
            let is_news = **former != view;
            if is_news {
                *former = Arc::new(view);
            }
            is_news
        });
    }
}
