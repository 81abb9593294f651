//! What is said at the end of a drain: what has moved, what stays and why, and whether the node may
//! be stopped now.

use std::collections::BTreeSet;
use std::time::Duration;

use partha::{ClassId, NodeId, Uid};
use serde_json::{Map, Value, json};

use super::tally::{Stays, Tally, Why};
use super::targets::Targets;
use super::{Counts, Drain};
use crate::cluster::{NodeInfo, System};
use crate::names;
use crate::output::{Output, Rows};
use crate::sessions;
use crate::survey;

/// Actions and transient objects that are named, at most.
const NAMED_MAX: usize = 5;
/// Bindings of a session asked for at a time, and at all.
const BINDINGS: u32 = 500;

/// How a drain has ended.
pub(super) struct Report {
    name: String,
    id: NodeId,
    objects: u64,
    moved: u64,
    seconds: f64,
    sent: Vec<(String, u64)>,
    tally: Tally,
    /// The name of each class that something stays of.
    class_names: Vec<(u64, String)>,
    /// Actions that have a part there still, with how far they are.
    actions: Vec<(Uid, &'static str)>,
    /// Objects that live in the node's process alone and that others are bound to.
    transient: BTreeSet<Uid>,
    /// Objects that were not there yet when the others were gone over.
    come: u64,
    /// What could not be asked, if anything.
    unknown: Option<String>,
}

impl Report {
    /// Of a drain that has run, with a last look at the node.
    pub(super) async fn of(drain: &Drain<'_>, counts: &Counts, tally: Tally) -> Self {
        let sent = {
            let targets = drain.targets.borrow();
            let arrived = targets.arrived().into_iter();
            let arrived = arrived.map(|(name, count)| (name.to_owned(), count));
            arrived.collect()
        };
        let mut report = Self {
            name: drain.entry.name.clone(),
            id: NodeId(drain.entry.node),
            objects: counts.values().sum(),
            moved: drain.progress.moved_so_far(),
            seconds: drain.progress.time().as_secs_f64(),
            sent,
            tally,
            class_names: Vec::new(),
            actions: Vec::new(),
            transient: BTreeSet::new(),
            come: 0,
            unknown: None,
        };
        if let Err(error) = report.look(drain).await {
            report.unknown = Some(format!("{error:#}"));
        }
        report
    }

    async fn look(&mut self, drain: &Drain<'_>) -> anyhow::Result<()> {
        let source = drain.reach().await?;
        let classes: BTreeSet<_> = self.tally.all().map(|(class, ..)| class).collect();
        let name = |class| (class, source.class_name(ClassId(class)));
        self.class_names = classes.into_iter().map(name).collect();
        // Objects that stay may be used for ever.
        let time = match self.tally.staying() {
            0 => drain.arguments.wait,
            _ => Duration::ZERO,
        };
        self.actions = drain.actions(&source, time).await?;
        self.transient = transient(drain.system, &source).await?;
        // Behind the place where the last pass was, or while actions were waited for, others may
        // have come: made there by name, or moved there.
        let there: u64 = super::count(drain.system, &source).await?.values().sum();
        self.come = there.saturating_sub(self.tally.staying());
        Ok(())
    }

    /// Whether objects have come that the drain has not tried to move yet.
    pub(super) fn is_behind(&self) -> bool {
        self.come > 0
    }

    /// How many objects have left the node without the drain: somebody else has moved them, or
    /// their copies here were one too many when others had come back.
    fn gone(&self) -> u64 {
        self.objects
            .saturating_sub(self.moved)
            .saturating_sub(self.tally.staying())
    }

    /// Whether nothing is there any more that would be missed.
    pub(super) fn may_be_stopped(&self) -> bool {
        self.tally.staying() == 0
            && self.come == 0
            && self.actions.is_empty()
            && self.unknown.is_none()
    }

    pub(super) async fn show(&self, system: &System, out: &mut Output) -> anyhow::Result<()> {
        let stays = self.stays(system).await;
        if out.is_json() {
            out.value(&self.as_json(stays))?;
            return Ok(());
        }
        let to = self.sent.iter();
        let to: Vec<_> = to.map(|(name, count)| format!("{name} {count}")).collect();
        let mut facts = vec![
            ("node", json!(self.name)),
            (
                "moved",
                json!(format!("{} of {}", self.moved, self.objects)),
            ),
            ("sent", json!(to)),
        ];
        if self.gone() > 0 {
            let told = format!("{} otherwise, as copies that others replaced", self.gone());
            facts.push(("gone", json!(told)));
        }
        facts.push(("time", json!(format!("{:.1} s", self.seconds))));
        out.facts(&facts)?;
        if !stays.is_empty() {
            out.line("")?;
            let mut rows = Rows::new(&["CLASS", "STAY", "OBJECTS", "WHY"]);
            let row = |stays: &Stay| {
                vec![
                    json!(stays.class),
                    json!(stays.count),
                    json!(stays.objects),
                    json!(stays.why),
                ]
            };
            rows.page(out, &stays.iter().map(row).collect::<Vec<_>>())?;
            rows.end(out)?;
        }
        out.line("")?;
        out.line(&self.sentence())?;
        Ok(())
    }

    async fn stays(&self, system: &System) -> Vec<Stay> {
        let named = self.tally.all().flat_map(|(_, _, stays)| &stays.named);
        let names = names::of_objects(system, &named.copied().collect()).await;
        let called = |uid: &Uid| names.get(uid).cloned().unwrap_or_else(|| uid.to_string());
        let stay = |(class, why, stays): (u64, &Why, &Stays)| Stay {
            class: self.class_name(class),
            count: stays.count,
            objects: stays.named.iter().map(called).collect(),
            busy: why.may_pass(),
            why: stays.text.clone(),
        };
        self.tally.all().map(stay).collect()
    }

    fn class_name(&self, class: u64) -> String {
        let mut names = self.class_names.iter();
        let found = names.find(|(known, _)| *known == class);
        match (found, class) {
            (Some((_, name)), _) => name.clone(),
            (None, 0) => "others".to_owned(),
            (None, class) => ClassId(class).to_string(),
        }
    }

    fn as_json(&self, stays: Vec<Stay>) -> Value {
        let sent = self.sent.iter();
        let sent: Map<_, _> = sent
            .map(|(name, count)| (name.clone(), json!(count)))
            .collect();
        let actions = self.actions.iter();
        let actions =
            actions.map(|(action, phase)| json!({ "action": action.to_string(), "phase": phase }));
        let stays = stays.into_iter().map(|stay| {
            json!({
                "class": stay.class,
                "count": stay.count,
                "objects": stay.objects,
                "busy": stay.busy,
                "why": stay.why,
            })
        });
        json!({
            "node": self.name,
            "id": self.id.to_string(),
            "objects": self.objects,
            "moved": self.moved,
            "sent": sent,
            "gone": self.gone(),
            "seconds": self.seconds,
            "stays": stays.collect::<Vec<_>>(),
            "actions": actions.collect::<Vec<_>>(),
            "come": self.come,
            "transient": self.transient.iter().map(Uid::to_string).collect::<Vec<_>>(),
            "may_be_stopped": self.may_be_stopped(),
            "told": self.sentence(),
        })
    }

    /// What to do about what stays.
    fn cure(&self) -> String {
        let name = &self.name;
        let copies = |why: &Why| matches!(why, Why::NotReplaced(_));
        let only_copies =
            self.tally.staying() > 0 && self.tally.all().all(|(_, why, _)| copies(why));
        let nobody = self.tally.all().any(|(_, why, _)| *why == Why::NoTarget);
        let passes = self.tally.busy() > 0
            || self.come > 0
            || !self.actions.is_empty()
            || self.unknown.is_some();
        match (passes, nobody) {
            (true, _) => format!(
                "`partha node drain {name}` goes on; `partha actions {name}` shows what is under \
                 way"
            ),
            (false, true) => "a node that runs the classes of what stays has to be started, or \
                              what stays is lost for as long as this one is away"
                .to_owned(),
            (false, false) if only_copies => "they are copies that no other node can have: start \
                                              another node, or have fewer (`partha replicate NAME \
                                              N`)"
            .to_owned(),
            (false, false) => "objects that stay are lost while this one is away".to_owned(),
        }
    }

    /// Whether the node may be stopped now, and why not.
    fn sentence(&self) -> String {
        let name = &self.name;
        let mut why = Vec::new();
        let staying = self.tally.staying();
        match staying {
            0 => {}
            1 => why.push("1 object stays".to_owned()),
            count => why.push(format!("{count} objects stay")),
        }
        match self.come {
            0 => {}
            1 => why.push("1 object has come meanwhile".to_owned()),
            count => why.push(format!("{count} objects have come meanwhile")),
        }
        let actions = self.actions.iter().take(NAMED_MAX);
        let actions: Vec<_> = actions
            .map(|(action, phase)| format!("{action}, {phase}"))
            .collect();
        match self.actions.len() {
            0 => {}
            1 => why.push(format!("an action has a part there still ({})", actions[0])),
            count => why.push(format!(
                "{count} actions have a part there still ({})",
                actions.join("; ")
            )),
        }
        if let Some(unknown) = &self.unknown {
            why.push(format!("it could not be asked: {unknown}"));
        }
        if !why.is_empty() {
            let cure = self.cure();
            return format!(
                "node '{name}' may not be stopped yet: {}; {cure}",
                why.join(", ")
            );
        }
        let transient = self.transient.iter().take(NAMED_MAX);
        let transient: Vec<_> = transient.map(Uid::to_string).collect();
        let ends = match self.transient.len() {
            0 => String::new(),
            1 => format!(
                "; a transient object that others are bound to ends with it ({})",
                transient[0]
            ),
            count => format!(
                "; {count} transient objects that others are bound to end with it ({})",
                transient.join(", ")
            ),
        };
        format!(
            "node '{name}' may be stopped now: it has no objects, and no action has a part \
             there{ends}"
        )
    }
}

/// Objects that stay, as they are shown.
struct Stay {
    class: String,
    count: u64,
    /// Names or uids of some of them.
    objects: Vec<String>,
    busy: bool,
    why: String,
}

/// What `--dry-run` says.
pub(super) fn plan(
    source: &NodeInfo,
    mut targets: Targets,
    counts: &Counts,
    out: &mut Output,
) -> anyhow::Result<()> {
    let mut rows = Rows::new(&["CLASS", "OBJECTS", "TO"]);
    let mut page = Vec::new();
    for (class, count) in counts {
        let before: Vec<_> = targets.sent().map(|(_, count)| count).collect();
        let going = (0..*count)
            .filter(|_| targets.choose(*class, &[]).is_some())
            .count();
        let to = targets.sent().zip(before);
        let to: Vec<_> = to
            .filter(|((_, after), before)| after > before)
            .map(|((name, after), before)| format!("{name} {}", after - before))
            .collect();
        page.push(vec![
            json!(source.class_name(ClassId(*class))),
            json!(count),
            match going {
                0 => json!("stay: no living node that may get them runs the class"),
                _ => json!(to),
            },
        ]);
    }
    rows.page(out, &page)?;
    rows.end(out)?;
    out.flush()?;
    Ok(())
}

/// That nobody may get objects of these classes.
pub(super) fn no_target(source: &NodeInfo, classes: impl Iterator<Item = u64>) -> String {
    let names: Vec<_> = classes
        .map(|class| source.class_name(ClassId(class)))
        .collect();
    format!(
        "no other living node that is wanted and not cordoned runs {}; `partha nodes -o wide` \
         shows which node runs what",
        names.join(", ")
    )
}

/// Objects of the node's process that others are bound to: those of no class that is stored.
async fn transient(system: &System, source: &NodeInfo) -> anyhow::Result<BTreeSet<Uid>> {
    let client = &system.client;
    let mut found = BTreeSet::new();
    let manager = Uid::connection_manager(source.handle.id());
    for session in survey::in_time(sessions::of_node(client, &source.handle)).await? {
        let mut after = Uid::NIL;
        loop {
            let page = source.handle.manager().bindings(
                client,
                session.process,
                session.incarnation,
                after,
                BINDINGS,
            );
            // A session that has ended in the meantime is bound to nothing.
            let Ok(page) = page.await else { break };
            let Some(last) = page.last() else { break };
            after = last.object;
            let transient = page.iter().filter(|binding| {
                let class = ClassId(binding.class);
                binding.object != manager && binding.class != 0 && source.class(class).is_none()
            });
            found.extend(transient.map(|binding| binding.object));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use partha::system::NotMovable;
    use partha::system::connection_manager::MoveObjectError;

    use super::*;

    fn report(tally: Tally) -> Report {
        Report {
            name: "a".to_owned(),
            id: NodeId(1),
            objects: 3,
            moved: 3,
            seconds: 1.0,
            sent: Vec::new(),
            tally,
            class_names: Vec::new(),
            actions: Vec::new(),
            transient: BTreeSet::new(),
            come: 0,
            unknown: None,
        }
    }

    #[test]
    fn a_node_that_objects_have_come_to_may_not_be_stopped() {
        let mut report = report(Tally::default());
        assert!(report.may_be_stopped() && !report.is_behind());
        assert!(report.sentence().contains("it has no objects"));
        report.come = 2;
        assert!(!report.may_be_stopped() && report.is_behind());
        let told = report.sentence();
        assert!(told.contains("2 objects have come meanwhile"), "{told}");
        assert!(told.contains("`partha node drain a` goes on"), "{told}");
        assert_eq!(report.as_json(Vec::new())["come"], 2);
    }

    #[test]
    fn objects_that_went_otherwise_are_counted() {
        let mut tally = Tally::default();
        tally.stays(Uid::NIL, 8, Why::NoTarget, "nobody runs it");
        let mut report = report(tally);
        for (objects, moved, gone) in [(10, 4, 5), (10, 9, 0), (9, 9, 0)] {
            (report.objects, report.moved) = (objects, moved);
            assert_eq!(
                report.as_json(Vec::new())["gone"],
                gone,
                "{moved} of {objects}"
            );
        }
    }

    #[test]
    fn a_node_is_to_be_started_only_if_none_runs_the_class() {
        let cure = "a node that runs the classes";
        let mut tally = Tally::default();
        let reason = "it is a service's own";
        let refused = Why::of(&MoveObjectError::NotMovable(NotMovable {
            object: Uid::NIL,
            reason: reason.to_owned(),
            passing: false,
        }));
        tally.stays(Uid::NIL, 7, refused.clone(), reason);
        let told = report(tally).sentence();
        assert!(told.contains("1 object stays"), "{told}");
        assert!(!told.contains(cure), "{told}");

        let mut tally = Tally::default();
        tally.stays(Uid::NIL, 7, refused, reason);
        tally.stays(Uid::NIL, 8, Why::NoTarget, "nobody runs it");
        let told = report(tally).sentence();
        assert!(told.contains(cure), "{told}");
    }
}
