//! Operations in batches whose parts can be prepared at once.

use std::{collections::HashSet, iter};

use control::reconcile::ServiceOp;

/// How many operations are prepared at once: all processors have enough to do, and little is reserved in advance.
const BATCH: usize = 256;

/// Cuts operations into batches in which none changes what an earlier one was about.
pub(super) fn batches(mut ops: &[ServiceOp]) -> impl Iterator<Item = &[ServiceOp]> {
    iter::from_fn(move || {
        let mut vips = HashSet::new();
        let mut is_new = |op: &ServiceOp| op.vip().is_none_or(|vip| vips.insert(vip));
        let joins = |op: &&ServiceOp| is_new(op) || matches!(op, ServiceOp::Retire { .. });
        let (batch, rest) = ops.split_at(ops.iter().take(BATCH).take_while(joins).count());
        ops = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use control::service::{Algorithm, Service, Vip};

    use super::*;

    fn add(port: u16) -> ServiceOp {
        let vip = Vip { port, ..vip() };
        let name = port.to_string();
        ServiceOp::Add(Service {
            name,
            vip,
            algorithm: Algorithm::Maglev,
            checking: None,
            backends: Vec::new(),
        })
    }

    fn vip() -> Vip {
        "10.96.0.10:80/tcp".parse().unwrap()
    }

    #[test]
    fn a_batch_ends_before_what_changes_a_vip_again() {
        let retire = ServiceOp::Retire { vip: Some(vip()), row: 0 };
        let ops = [ServiceOp::Remove(vip()), add(1), add(80), retire.clone(), retire, add(2), add(80)];
        let lengths: Vec<usize> = batches(&ops).map(<[ServiceOp]>::len).collect();
        assert_eq!(lengths, [2, 4, 1]);
        assert_eq!(batches(&ops).flatten().cloned().collect::<Vec<_>>(), ops);
    }

    #[test]
    fn a_batch_is_no_longer_than_its_limit() {
        let ops: Vec<ServiceOp> = (0..BATCH as u16 + 1).map(add).collect();
        assert_eq!(batches(&ops).map(<[ServiceOp]>::len).collect::<Vec<_>>(), [BATCH, 1]);
    }
}
