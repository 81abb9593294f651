//! The object that everybody knows: walks paths, and has the last context make the change.
//!
//! # At most once
//!
//! `add`, `rebind` and `delete` only read this object, so that they do not wait for each other
//! here; what is changed is the last context, by one call that carries the caller's own call id.
//! Asked again with it, the walk is made again and ends at the saved reply of that call.
//!
//! # Deleting a context
//!
//! takes two steps: the context closes itself if it is empty, then its name is taken out of the
//! one above. A crash between the two leaves a name of a closed context; whoever next adds
//! something below it, or deletes it, finishes the deletion.

use partha::services::naming::name_context::{CloseError, PutError};
use partha::services::naming::name_service::{
    AddError, DeleteError, ListError, LookupError, RebindError, Servant, State,
};
use partha::services::naming::{BadName, Closed, Entry, NameContext, NameExists};
use partha::{CallId, CallOptions, Context, ErrorKind, Place, Result, SystemError, Uid};

use crate::context::LIST_MAX;
use crate::path::parts;
use crate::walk::{Gone, Lost, Walk};

/// Address hints of a name, at most, and bytes of each.
const HINTS_MAX: usize = 8;
const HINT_BYTES_MAX: usize = 255;
/// How often an addition is begun anew since the context was being deleted under it.
const ATTEMPTS: u64 = 3;

/// The servant of the naming service.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceServant;

impl Servant for ServiceServant {
    fn new(&self) -> State {
        State { root: None }
    }

    async fn prepare(&self, state: &mut State, cx: &Context) -> Result<NameContext> {
        if let Some(root) = &state.root {
            return Ok(root.clone());
        }
        // A crash after this line leaves a context without names that nobody knows.
        let root = NameContext::create(cx, &Place::Node(cx.client().me().node), "").await?;
        state.root = Some(root.clone());
        Ok(root)
    }

    async fn lookup(
        &self,
        state: &State,
        cx: &Context,
        path: String,
    ) -> Result<Entry, LookupError> {
        let parts = parts(&path)?;
        let walk = Walk {
            cx,
            root: root(state)?,
            path: &path,
            parts: &parts,
        };
        walk.entry().await.map_err(Lost::raise)
    }

    async fn add(
        &self,
        state: &State,
        cx: &Context,
        path: String,
        object: Uid,
        class: u64,
        hints: Vec<String>,
        make_contexts: bool,
    ) -> Result<(), AddError> {
        let wanted = Wanted {
            object,
            class,
            hints,
            make_contexts,
            replace: false,
        };
        let put = put(state, cx, &path, &wanted).await;
        put.map_err(|refused| match refused {
            Refused::Taken(object) => NameExists { path, object }.into(),
            Refused::Lost(lost) => lost.raise(),
        })
    }

    async fn rebind(
        &self,
        state: &State,
        cx: &Context,
        path: String,
        object: Uid,
        class: u64,
        hints: Vec<String>,
        make_contexts: bool,
    ) -> Result<(), RebindError> {
        let wanted = Wanted {
            object,
            class,
            hints,
            make_contexts,
            replace: true,
        };
        let put = put(state, cx, &path, &wanted).await;
        put.map_err(|refused| match refused {
            Refused::Taken(object) => NameExists { path, object }.into(),
            Refused::Lost(lost) => lost.raise(),
        })
    }

    async fn delete(&self, state: &State, cx: &Context, path: String) -> Result<(), DeleteError> {
        let parts = parts(&path)?;
        let Some((name, parents)) = parts.split_last() else {
            return Err(no_root_name(&path).into());
        };
        let walk = Walk {
            cx,
            root: root(state)?,
            path: &path,
            parts: &parts,
        };
        let parent = walk
            .context(parents.len(), false)
            .await
            .map_err(Lost::raise::<DeleteError>)?;
        let found = parent.find(cx, name).await?;
        if let Some(entry) = found.as_ref().filter(|entry| entry.context) {
            let context = NameContext::from_uid(entry.object);
            context
                .close(cx, &parts.join("/"))
                .await
                .map_err(|error| match error {
                    CloseError::ContextNotEmpty(error) => DeleteError::ContextNotEmpty(error),
                    CloseError::System(error) => DeleteError::System(error),
                })?;
        }
        // Also if there is no such name: this may be asked again, and the reply be saved there.
        let object = found.map_or(Uid::NIL, |entry| entry.object);
        if parent.take(&with_id(cx, 0), name, object).await? {
            return Ok(());
        }
        Err(walk.not_found(parents.len()).raise())
    }

    async fn list(
        &self,
        state: &State,
        cx: &Context,
        path: String,
        after: String,
        limit: u32,
    ) -> Result<Vec<Entry>, ListError> {
        let parts = parts(&path)?;
        let walk = Walk {
            cx,
            root: root(state)?,
            path: &path,
            parts: &parts,
        };
        let context = walk
            .context(parts.len(), false)
            .await
            .map_err(Lost::raise::<ListError>)?;
        Ok(context.list(cx, &after, limit.min(LIST_MAX)).await?)
    }
}

/// What a name is to stand for.
struct Wanted {
    object: Uid,
    class: u64,
    hints: Vec<String>,
    make_contexts: bool,
    replace: bool,
}

/// Why a name was not put in.
enum Refused {
    Taken(Uid),
    Lost(Lost),
}

async fn put(state: &State, cx: &Context, path: &str, wanted: &Wanted) -> Result<(), Refused> {
    let parts = parts(path)?;
    let Some(name) = parts.last() else {
        return Err(no_root_name(path).into());
    };
    check(path, wanted)?;
    let walk = Walk {
        cx,
        root: root(state)?,
        path,
        parts: &parts,
    };
    let entry = Entry {
        name: (*name).to_owned(),
        object: wanted.object,
        class: wanted.class,
        context: wanted.class == NameContext::CLASS.0,
        hints: wanted.hints.clone(),
    };
    let mut closed = None;
    for attempt in 0..ATTEMPTS {
        match try_put(&walk, &with_id(cx, attempt), &entry, wanted).await {
            Err(Refused::Lost(Lost::Closed(lost))) => {
                finish_deletion(&walk, &lost).await?;
                closed = Some(lost);
            }
            ended => return ended,
        }
    }
    Err(Lost::Closed(closed.expect("only a closed context begins another attempt")).into())
}

async fn try_put(
    walk: &Walk<'_>,
    caller: &CallOptions,
    entry: &Entry,
    wanted: &Wanted,
) -> Result<(), Refused> {
    let parent = walk
        .context(walk.parts.len() - 1, wanted.make_contexts)
        .await?;
    let put = parent.put(caller, entry, wanted.replace).await;
    put.map_err(|error| match error {
        PutError::Taken(taken) => Refused::Taken(taken.entry.object),
        PutError::Closed(Closed { path }) => Lost::Closed(Gone {
            path,
            context: parent,
        })
        .into(),
        PutError::System(error) => error.into(),
    })
}

/// Takes the name of a closed context out of the one above it, as its deletion was about to.
async fn finish_deletion(walk: &Walk<'_>, gone: &Gone) -> Result<(), Lost> {
    let parts = parts(&gone.path)?;
    let Some((name, parents)) = parts.split_last() else {
        // The root is never closed.
        return Ok(());
    };
    let to_gone = Walk {
        path: &gone.path,
        parts: &parts,
        ..*walk
    };
    match to_gone.context(parents.len(), false).await {
        Ok(parent) => drop(parent.take(walk.cx, name, gone.context.uid()).await?),
        // Then its name is gone as well.
        Err(Lost::NotFound(_) | Lost::NotAContext(_)) => {}
        Err(lost) => return Err(lost),
    }
    Ok(())
}

/// A caller for the change itself: under the id of the call being served, if it has one.
///
/// An attempt that met a closed context has its reply saved like any other, so the next one
/// needs another id, the same again when the whole is asked for again. Ids of our own clients
/// leave the upper bits of the sequence free.
fn with_id(cx: &Context, attempt: u64) -> CallOptions {
    match cx.call_id() {
        Some(CallId { caller, sequence }) => cx.call().id(CallId {
            caller,
            sequence: sequence ^ (attempt << 60),
        }),
        None => cx.call(),
    }
}

fn root(state: &State) -> Result<&NameContext> {
    let detail = "the naming service has not prepared itself yet; try again";
    state
        .root
        .as_ref()
        .ok_or_else(|| SystemError::new(ErrorKind::Unreachable, detail))
}

fn check(path: &str, wanted: &Wanted) -> Result<(), BadName> {
    let bad = |reason: String| {
        Err(BadName {
            path: path.to_owned(),
            reason,
        })
    };
    if wanted.object == Uid::NIL {
        return bad("the nil uid stands for no object and can have no name".to_owned());
    }
    let long = wanted.hints.iter().any(|hint| hint.len() > HINT_BYTES_MAX);
    if wanted.hints.len() > HINTS_MAX || long {
        return bad(format!(
            "at most {HINTS_MAX} address hints of {HINT_BYTES_MAX} bytes are kept with a name"
        ));
    }
    Ok(())
}

fn no_root_name(path: &str) -> BadName {
    let reason = "this is the root context, which stays what it is; say a name in it".to_owned();
    BadName {
        path: path.to_owned(),
        reason,
    }
}

impl<E: Into<Lost>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Lost(error.into())
    }
}
