//! What comes from the wire, and what the membership's core sends.

use std::time::{SystemTime, UNIX_EPOCH};

use control::cluster::{Moment, membership::Output};

use super::{LISTEN_AGAIN, Task};
use crate::cluster::transport::{Kind, News, Said, StreamId, Transport};

/// Largest datagram that is read whole; none of the core's is larger.
const DATAGRAM: usize = 2048;
/// Datagrams that are taken before the core's time passes again.
const AT_A_TIME: usize = 256;

impl Task<'_> {
    /// Listens, or says why not.
    pub(super) async fn listen(&mut self) {
        let at = self.inbox.settings.config.listen;
        let (credentials, traffic) = (self.credentials.clone(), self.inbox.traffic.clone());
        match Transport::listen(at, credentials, traffic).await {
            Ok(transport) => {
                tracing::info!("cluster: listening at {at}");
                (self.transport, self.unheard) = (Some(transport), None);
            }
            Err(error) => {
                self.listen_at = self.now() + LISTEN_AGAIN;
                let text =
                    format!("cluster-listen: {at}: {error}; free the address, or change cluster.listen");
                self.unheard = Some(text);
            }
        }
        self.view_soon();
    }

    pub(super) fn hear(&mut self, news: News) {
        let at = self.moment();
        match news {
            News::Said(said) => self.hear_stream(said),
            News::Ended(stream) => match self.asked.remove(&stream) {
                Some(with) => self.core.answered(at, with, None),
                None => self.end_talk(stream),
            },
            News::Datagrams => {}
            News::Broken(error) => {
                tracing::warn!("cluster: {error}");
                self.transport = None;
            }
        }
    }

    fn hear_stream(&mut self, said: Said) {
        let at = self.moment();
        match said.kind {
            Kind::Membership => {
                let Said { stream, bytes, answer, .. } = said;
                let next = match self.asked.remove(&stream) {
                    Some(with) => {
                        self.core.answered(at, with, Some(&bytes));
                        None
                    }
                    None => self.core.answer(at, &bytes),
                };
                // The stream may have ended meanwhile.
                drop(answer.send(next));
            }
            Kind::Logs => self.hear_logs(said),
            Kind::Write => self.hear_write(said),
        }
    }

    /// Takes what has arrived before time passes: a process that stood still finds answers there that are not late.
    pub(super) fn take_datagrams(&mut self) {
        let Some(transport) = &self.transport else { return };
        let mut buffer = [0; DATAGRAM];
        for _ in 0..AT_A_TIME {
            let Some((datagram, source)) = transport.datagram(&mut buffer) else { return };
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let at = Moment { now: self.start.elapsed(), wall: u64::try_from(wall).unwrap_or(u64::MAX) };
            self.core.datagram(at, source, datagram);
        }
    }

    /// Does what the core asks for.
    pub(super) fn carry_out(&mut self) {
        loop {
            let outputs = self.core.take_outputs();
            if outputs.is_empty() {
                return;
            }
            outputs.into_iter().for_each(|output| self.carry_out_one(output));
        }
    }

    fn carry_out_one(&mut self, output: Output) {
        match (output, &mut self.transport) {
            (Output::Send { to, datagram }, Some(transport)) => transport.send(to, &datagram),
            (Output::Exchange { to, request }, Some(transport)) => {
                self.streams += 1;
                self.asked.insert(StreamId::Own(self.streams), to);
                transport.converse(self.streams, to, Kind::Membership, request);
            }
            (Output::Exchange { to, .. }, None) => self.core.answered(self.moment(), to, None),
            (Output::Notice(notice), _) => self.notice(&notice),
            (Output::Payload { from, protocol, bytes }, _) => self.payload(&from, protocol, &bytes),
            (Output::Send { .. }, None) => {}
        }
    }
}
