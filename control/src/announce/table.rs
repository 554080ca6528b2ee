//! From what a kernel's table is to have to the operations that lead there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::spec::OnTable;

/// What tables are to have: the metric of each prefix.
pub type Tables = BTreeMap<(OnTable, IpNet), u32>;

/// What announcements need of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    pub tables: Tables,
    /// Addresses on `lo`.
    pub loopback: BTreeSet<IpAddr>,
}

/// A route of ours in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableRoute {
    pub table: OnTable,
    pub prefix: IpNet,
    pub metric: u32,
}

/// A change of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableOp {
    Set(TableRoute),
    Delete(TableRoute),
}

/// Lowest metric: with none IPv6 has one of its own.
const LEAST: u32 = 1;

/// What is to be changed; a route of another metric is there before the former one goes.
pub fn table_ops(wanted: &Tables, held: &BTreeSet<TableRoute>) -> Vec<TableOp> {
    let route = |(&(table, prefix), &metric): (&(OnTable, IpNet), &u32)| TableRoute {
        table,
        prefix,
        metric: metric.max(LEAST),
    };
    let wanted: BTreeSet<TableRoute> = wanted.iter().map(route).collect();
    let set = wanted.difference(held).map(|route| TableOp::Set(*route));
    let delete = held.difference(&wanted).map(|route| TableOp::Delete(*route));
    set.chain(delete).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_metric_is_set_before_the_former_is_deleted_and_what_is_there_stays() {
        let prefix = |last: u8| IpNet::from(IpAddr::from([192, 0, 2, last]));
        let route = |last, metric| TableRoute { table: 110, prefix: prefix(last), metric };
        let wanted = [((110, prefix(1)), 0), ((110, prefix(2)), 500), ((110, prefix(3)), 100)].into();
        let held = [route(1, 1), route(2, 100), route(4, 100)].into();
        assert_eq!(
            table_ops(&wanted, &held),
            [
                TableOp::Set(route(2, 500)),
                TableOp::Set(route(3, 100)),
                TableOp::Delete(route(2, 100)),
                TableOp::Delete(route(4, 100)),
            ]
        );
    }
}
