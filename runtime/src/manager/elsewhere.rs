//! What a node says of servants that run elsewhere than on its shards' threads, and of those that
//! keep such a thread from the others.
//!
//! No shard is asked: what is told here is of use when one of them does not answer.

use super::Manager;
use crate::elsewhere::{Runaway, ServerReport, Stuck};
use crate::node::Home;
use crate::system::{BusyServant, Elsewhere, ServerDescription};

/// Entries of each list, at most: more than the limits that a node has if nobody raises them.
const LISTED_MAX: usize = 512;

impl Manager {
    /// All of it.
    pub(super) fn elsewhere_now(&self) -> Elsewhere {
        let home = &self.home;
        let mut stuck: Vec<_> = home.stuck().into_iter().map(stuck_servant).collect();
        let runaways = home.runaways().into_iter();
        let mut runaways: Vec<_> = runaways.map(|one| runaway_servant(home, one)).collect();
        let mut servers = home.servers();
        servers.sort_by_key(|server| std::cmp::Reverse(server.crashes));
        let mut servers: Vec<_> = servers.into_iter().map(server).collect();
        let left_out = [bound(&mut stuck), bound(&mut runaways), bound(&mut servers)];
        Elsewhere {
            stuck,
            runaways,
            servers,
            left_out: u32::try_from(left_out.iter().sum::<usize>()).unwrap_or(u32::MAX),
        }
    }
}

/// Shortens a list; answers by how much.
fn bound<T>(list: &mut Vec<T>) -> usize {
    let over = list.len().saturating_sub(LISTED_MAX);
    list.truncate(LISTED_MAX);
    over
}

fn stuck_servant(stuck: Stuck) -> BusyServant {
    BusyServant {
        class: stuck.class.to_owned(),
        method: stuck.method.to_owned(),
        object: stuck.object,
        shard: stuck.shard,
        busy: stuck.at_least,
        killed: None,
    }
}

fn runaway_servant(home: &Home, runaway: Runaway) -> BusyServant {
    BusyServant {
        class: runaway.class.to_owned(),
        method: runaway.method.to_owned(),
        object: runaway.object,
        shard: home.shard(runaway.object).index(),
        busy: runaway.running,
        killed: Some(runaway.killed),
    }
}

fn server(report: ServerReport) -> ServerDescription {
    ServerDescription {
        class: report.class.to_owned(),
        object: report.object,
        pid: report.pid,
        age: report.age,
        restarts: report.restarts,
        crashes: report.crashes,
        last_exit: report.last_exit,
        pause: report.pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_place_is_counted() {
        let mut long = vec![(); LISTED_MAX + 3];
        assert_eq!((bound(&mut long), long.len()), (3, LISTED_MAX));
        assert_eq!((bound(&mut long), long.len()), (0, LISTED_MAX));
    }
}
