//! Asking the binder for the views of groups, and for changes of them.
//!
//! A question whose answer is lost is asked again as it was: a change is about a view of one
//! number, so it is done once at most, and the answer tells the view that is in force then
//! ([`partha_core::group::View`] says why that is enough). All of it goes in batches that the
//! binder takes, each one durable call. Dropping what waits here is harmless.

use std::time::Duration;

use partha_core::id::{NodeId, Uid};

use super::Locator;
use super::binder::binder::{ChangeViewsError, MakeGroupError, SetWantedError, ViewsError};
use super::binder::{Binder, GROUPS_MAX, GroupPlacement, GroupView, TooManyGroups, ViewChange};
use super::pauses::Pauses;
use crate::caller::CallOptions;
use crate::client::Client;
use crate::error::{ErrorKind, Result, SystemError};
use crate::moved::Moved;

/// Pause after the first attempt that failed: somebody waits for a leader.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Locator {
    /// The views of those of the objects that are groups, in the order asked for.
    ///
    /// # Errors
    /// Those of finding and asking the binder, after attempts for as long as `within`; `Malformed`
    /// for what is no view.
    pub async fn views(
        &self,
        client: &Client,
        objects: &[Uid],
        within: Duration,
    ) -> Result<Vec<GroupView>> {
        let mut all = Vec::new();
        for batch in objects.chunks(GROUPS_MAX) {
            let mut pauses = pauses(client, within)?;
            let found = loop {
                let asked = async {
                    let (binder, caller) = self.ask(client, &pauses).await?;
                    let found = binder.views(&caller, batch).await;
                    found.map_err(|error| match error {
                        ViewsError::TooManyGroups(error) => too_many(&error),
                        ViewsError::System(error) => error,
                    })
                };
                match asked.await {
                    Ok(found) => break found,
                    Err(error) => pauses.after(error, "asking for views").await?,
                }
            };
            all.extend(right(found)?);
        }
        Ok(all)
    }

    /// Remembers who leads the group of a view, for whoever looks for the object next; none if the
    /// view has no members.
    pub(crate) fn note_leader(&self, view: &GroupView) -> Option<NodeId> {
        let node = NodeId(*view.members.first()?);
        let leads = Moved {
            node,
            addresses: self.addresses(node),
            moves: view.number,
        };
        self.moved().note(view.object, &leads);
        Some(node)
    }

    /// Groups after one of them, by identity, and whether these are the last; begin with the nil
    /// uid.
    ///
    /// # Errors
    /// Those of finding and asking the binder; `Malformed` for what is no view.
    pub async fn groups(&self, client: &Client, after: Uid) -> Result<(Vec<GroupView>, bool)> {
        let binder = self.binder(client).await?;
        let page = binder.groups(client, after, GROUPS_MAX as u32).await?;
        let last = page.len() < GROUPS_MAX;
        Ok((right(page)?, last))
    }

    /// Makes an object a group, unless it is one; answers the view that it is in then. Whoever asks
    /// has the object: if it has moved oftener than the number of the view says, as far as the
    /// binder knows, the group begins with a higher number.
    ///
    /// # Errors
    /// `BadOperation` for what is no view; those of finding and asking the binder, after attempts
    /// for as long as `within`.
    pub async fn make_group(
        &self,
        client: &Client,
        view: &GroupView,
        within: Duration,
    ) -> Result<GroupView> {
        let mut pauses = pauses(client, within)?;
        let mut view = view.clone();
        loop {
            let asked = async {
                let (binder, caller) = self.ask(client, &pauses).await?;
                Ok(binder.make_group(&caller, &view).await)
            };
            match asked.await {
                Ok(Ok(made)) => return right(vec![made]).map(|mut made| made.remove(0)),
                Ok(Err(MakeGroupError::OldView(old))) if old.known >= view.number => {
                    view.number = old.known.saturating_add(1);
                }
                Ok(Err(MakeGroupError::System(error))) | Err(error) => {
                    pauses.after(error, "making a group").await?;
                }
                Ok(Err(refused)) => {
                    return Err(SystemError::new(
                        ErrorKind::BadOperation,
                        refused.to_string(),
                    ));
                }
            }
        }
    }

    /// Asks for changes of views; answers the views that are in force after each, in the order of
    /// the changes, without those of objects that are no groups. If it fails, some may have been
    /// done: ask again.
    ///
    /// # Errors
    /// Those of finding and asking the binder, after attempts for as long as `within`; `Malformed`
    /// for what is no view.
    pub async fn change_views(
        &self,
        client: &Client,
        changes: &[ViewChange],
        within: Duration,
    ) -> Result<Vec<GroupView>> {
        let mut all = Vec::new();
        for batch in changes.chunks(GROUPS_MAX) {
            let mut pauses = pauses(client, within)?;
            let in_force = loop {
                let asked = async {
                    let (binder, caller) = self.ask(client, &pauses).await?;
                    let changed = binder.change_views(&caller, batch).await;
                    changed.map_err(|error| match error {
                        ChangeViewsError::TooManyGroups(error) => too_many(&error),
                        ChangeViewsError::System(error) => error,
                    })
                };
                match asked.await {
                    Ok(in_force) => break in_force,
                    Err(error) => pauses.after(error, "changing views").await?,
                }
            };
            all.extend(right(in_force)?);
        }
        Ok(all)
    }

    /// Says how many copies are wanted of a group, and where, if that is to change; answers its
    /// view.
    ///
    /// # Errors
    /// `BadOperation` if it is no group, or none can have so many; those of finding and asking the
    /// binder, after attempts for as long as `within`.
    pub async fn set_wanted(
        &self,
        client: &Client,
        object: Uid,
        wanted: u16,
        placement: Option<&GroupPlacement>,
        within: Duration,
    ) -> Result<GroupView> {
        let mut pauses = pauses(client, within)?;
        loop {
            let asked = async {
                let (binder, caller) = self.ask(client, &pauses).await?;
                Ok(binder.set_wanted(&caller, object, wanted, placement).await)
            };
            match asked.await {
                Ok(Ok(view)) => return right(vec![view]).map(|mut view| view.remove(0)),
                Ok(Err(SetWantedError::System(error))) | Err(error) => {
                    pauses
                        .after(error, "telling how many copies are wanted")
                        .await?;
                }
                Ok(Err(refused)) => {
                    return Err(SystemError::new(
                        ErrorKind::BadOperation,
                        refused.to_string(),
                    ));
                }
            }
        }
    }

    /// Makes a group whose only member is left an object without copies, if its view still has
    /// this number. Answers whether it is no group then; if so, it counts on its moves from there.
    ///
    /// # Errors
    /// Those of finding and asking the binder, after attempts for as long as `within`.
    pub async fn dissolve_group(
        &self,
        client: &Client,
        object: Uid,
        expected: u64,
        within: Duration,
    ) -> Result<bool> {
        let mut pauses = pauses(client, within)?;
        loop {
            let asked = async {
                let (binder, caller) = self.ask(client, &pauses).await?;
                binder.dissolve(&caller, object, expected).await
            };
            match asked.await {
                Ok(gone) => return Ok(gone),
                Err(error) => pauses.after(error, "dissolving a group").await?,
            }
        }
    }

    /// What an attempt needs.
    async fn ask(&self, client: &Client, pauses: &Pauses) -> Result<(Binder, CallOptions)> {
        let binder = self.binder(client).await?;
        Ok((binder, client.call().deadline(pauses.deadline())))
    }
}

fn pauses(client: &Client, within: Duration) -> Result<Pauses> {
    // Without a naming service there is no binder, however often it is asked for.
    client.naming_address()?;
    Ok(Pauses::new(PAUSE, PAUSE_MAX).within(within))
}

/// Nobody is to act on a view that is none.
fn right(views: Vec<GroupView>) -> Result<Vec<GroupView>> {
    for view in &views {
        if let Err(reason) = view.check() {
            let detail = format!("the binder's view of group {}: {reason}", view.object);
            return Err(SystemError::new(ErrorKind::Malformed, detail));
        }
    }
    Ok(views)
}

fn too_many(error: &TooManyGroups) -> SystemError {
    let detail = format!("the binder takes {} groups at a time", error.limit);
    SystemError::new(ErrorKind::TooLarge, detail)
}
