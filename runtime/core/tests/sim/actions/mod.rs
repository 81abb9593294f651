//! The world of nested atomic actions over many nodes, with calls outside of them.
//!
//! | module | holds |
//! |---|---|
//! | `plan` | what a seed decides beforehand; clocks |
//! | `world`, `event` | processes, engines, what will happen |
//! | `net`, `call` | connections; calls on their way there and back |
//! | `program`, `run` | random programs; the action they are a part of, its commit |
//! | `shell`, `servant`, `answer`, `image`, `disk` | what a node does besides deciding |
//! | `moves` | objects that move to other nodes, callers that follow |
//! | `groups` | replicated objects: leaders, takeovers |
//! | `log` | what their logs say |
//! | `cohort` | those of them whose next leader goes on with running actions |
//! | `steps` | work for the store in several steps, some of them in logs |
//! | `faults` | crashes, partitions, deaths |
//! | `truth` | what really happened |
//! | `checker` | what must be true of it |
//!
//! A run ends when faults have stopped and every program has ended. Then all callers leave, the
//! engines must be at rest, every outcome is asked for, every node drains, and the checkers judge.

mod answer;
mod call;
mod checker;
mod cohort;
mod disk;
mod event;
mod faults;
mod groups;
mod image;
mod leaders;
mod log;
mod moves;
mod net;
mod plan;
mod program;
mod reached;
mod run;
mod servant;
mod shell;
mod steps;
mod truth;
mod world;

use std::collections::BTreeMap;

use partha_core::Input;
use partha_core::id::Uid;

pub(crate) use reached::POINTS;

use crate::{Job, Summary};
use checker::{atomic, liveness, once, rest, serial};
use truth::OpNo;
use world::{Asked, Check, Event, World};

/// Runs one seed to its end.
pub(crate) fn run(job: &Job) -> Result<Summary, String> {
    let mut world = World::new(job);
    world.schedule(0, Event::Fault);
    world.schedule(0, Event::Watch);
    world.schedule(0, Event::Move);
    for client in world.plan.nodes..world.processes.len() {
        let client = world.life(client);
        world.schedule(0, Event::Next { client });
    }
    world.run_to_end()?;
    liveness::check(&world.tasks, &world.runs)?;
    close(&mut world)?;
    world.check_owners()?;
    let stored = stored(&world);
    atomic::check(&world.truth, &stored)?;
    once::check(&world.truth, &stored)?;
    serial::check(&world.truth, &stored)?;
    for _ in &world.truth.ops {
        world.summary.count("calls");
    }
    Ok(world.summary)
}

/// All callers leave, every outcome is asked for, all nodes drain; nothing may be left.
fn close(world: &mut World) -> Check {
    world.closing = true;
    for conn in 0..world.conns.len() {
        world.server_loses(conn)?;
    }
    world.run_to_end()?;
    for shard in world.nodes.iter().flat_map(|node| &node.shards) {
        rest::quiet(&shard.engine)?;
    }
    for node in &world.nodes {
        let forgetful = world.plan.limits.actions_max < 100;
        rest::stored(&node.disk, forgetful)?;
    }
    world.check_groups(world.plan.limits.actions_max < 100)?;
    for run in 0..world.runs.len() {
        let Some((coordinator, decider, ..)) = world.runs[run].request.clone() else {
            continue;
        };
        let action = world.runs[run].root;
        if world.truth.roots[&action].forgotten {
            continue;
        }
        let leader = decider.and_then(|uid| world.leader_site(uid));
        let site = leader.unwrap_or(coordinator.site);
        let at = world.place(World::node_of(site.node), usize::from(site.shard));
        let asked = Asked {
            conn: None,
            run,
            commit: false,
        };
        let ticket = world.question(at, asked);
        world.input(
            at,
            Input::Ask {
                ticket,
                action,
                decider,
            },
        )?;
        world.run_to_end()?;
    }
    for node in 0..world.nodes.len() {
        for shard in 0..world.plan.shards {
            world.input(world.place(node, shard), Input::Drain)?;
        }
    }
    world.run_to_end()?;
    for shard in world.nodes.iter().flat_map(|node| &node.shards) {
        rest::drained(&shard.engine)?;
        let left = !shard.tickets.is_empty() || !shard.held.is_empty() || !shard.asked.is_empty();
        if !shard.drained || left {
            return Err(format!(
                "tickets: {:?} {:?} are left",
                shard.held, shard.asked
            ));
        }
    }
    Ok(())
}

fn stored(world: &World) -> BTreeMap<Uid, Vec<OpNo>> {
    let states = world.nodes.iter().flat_map(|node| &node.disk.states);
    let groups = world.groups.iter();
    let groups = groups.map(|(uid, group)| (uid, &group.shown.list));
    let all = states.chain(groups);
    all.map(|(uid, list)| (*uid, list.clone())).collect()
}
