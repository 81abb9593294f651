//! Nothing that a dead caller left behind survives: a while after its end is known at a shard, no
//! servant runs for it there and no action that it called in goes on, unless it is prepared.
//! Servants do not outlive the deadlines of their calls either, nor the actions they work in.

use partha_core::Ticket;
use partha_core::engine::ActionPhase;
use partha_core::id::{Peer, Uid};

use crate::actions::net::Life;
use crate::actions::plan::KILLED;
use crate::actions::world::{Check, Event, Place, World};

/// Looks at what should be over.
pub(crate) fn check(world: &World, at: Place, event: &Event) -> Check {
    match event {
        Event::Orphans { of, .. } => gone(world, at, *of),
        Event::GivenUp { action, .. } => given_up(world, at, *action),
        Event::Overdue { ticket, .. } => overdue(world, at, *ticket),
        _ => Ok(()),
    }
}

/// Looks for what is left of a process that this shard knows to be gone.
fn gone(world: &World, at: Place, of: Life) -> Check {
    let shard = &world.nodes[at.node].shards[at.shard];
    for (ticket, held) in &shard.held {
        if held.runs && world.conns[held.conn].caller == of {
            return Err(format!("orphan: {ticket:?} runs for {of:?}: {held:?}"));
        }
    }
    let peer = World::peer_of(of);
    for action in shard.engine.actions() {
        let running = action.phase == ActionPhase::Active || action.phase == ActionPhase::Aborting;
        // It may have come with an object after its caller was gone here: then its end comes from
        // where the caller is still believed to be alive, or is missed, as any message may be.
        let calls = action.running + action.waiting > 0;
        let settled = world.moves.is_empty() && world.groups.is_empty();
        let moved = action.pinned || !(calls || settled);
        if running && !moved && action.callers.contains(&peer) {
            return Err(format!("orphan: {peer} is gone, but not {action:?}"));
        }
    }
    Ok(())
}

/// Looks for what is left anywhere of what a process began that died a while ago. Messages that
/// got lost, and tombstones that were forgotten, cost the time of the action: then there is
/// nothing to be said here. A mirror that has nothing in it hurts nobody: whoever ran the action
/// would have told it to go after the commit.
fn extinct_at(world: &World, of: Life) -> Check {
    let Peer { node, incarnation } = World::peer_of(of);
    let up = world.nodes.iter().enumerate();
    let up = up.filter(|(node, _)| world.processes[*node].up);
    let actions = up.flat_map(|(_, it)| it.shards.iter().flat_map(|shard| shard.engine.actions()));
    for action in actions {
        let root = action.path.root();
        let theirs = root.is_some_and(|uid| uid.node == node && uid.incarnation() == incarnation);
        let goes_on = action.phase == ActionPhase::Active || action.phase == ActionPhase::Aborting;
        let empty = (action.locks, action.objects, action.running, action.waiting) == (0, 0, 0, 0);
        if theirs && goes_on && !empty && !action.pinned {
            return Err(format!("orphan: {of:?} died, but its {action:?} goes on"));
        }
    }
    Ok(())
}

/// The same, if everybody could hear and had the time to.
pub(crate) fn extinct(world: &mut World, of: Life) -> Check {
    let forgetful = world.plan.limits.tombstones_max < 100;
    if world.unheard || forgetful {
        return Ok(());
    }
    let frozen = world.processes.iter().map(|process| process.frozen_until);
    let awake = frozen.max().unwrap_or_default() + KILLED;
    if awake > world.now {
        world.schedule(awake, Event::Extinct { of });
        return Ok(());
    }
    world.summary.reach("orphan: extinct");
    extinct_at(world, of)
}

/// Looks at an action that this shard has given up.
fn given_up(world: &World, at: Place, action: Uid) -> Check {
    let shard = &world.nodes[at.node].shards[at.shard];
    let mut actions = shard.engine.actions();
    let left = actions.find(|it| it.path.root() == Some(action));
    match left.filter(|it| it.phase == ActionPhase::Aborting && !it.pinned) {
        Some(action) => Err(format!("orphan: given up, but not gone: {action:?}")),
        None => Ok(()),
    }
}

/// Looks at a call that should have been over a while ago.
fn overdue(world: &World, at: Place, ticket: Ticket) -> Check {
    let shard = &world.nodes[at.node].shards[at.shard];
    match shard.held.get(&ticket).filter(|held| held.runs) {
        Some(held) => Err(format!("orphan: {ticket:?} outlives its time: {held:?}")),
        None => Ok(()),
    }
}
