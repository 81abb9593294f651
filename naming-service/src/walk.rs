//! Walking down a path: one step in each context, no lock between the steps.

use partha::services::naming::name_context::PutError;
use partha::services::naming::{BadName, Closed, Entry, NameContext, NameNotFound, NotAContext};
use partha::{Context, Place, SystemError};

/// What can end a walk.
#[derive(Debug)]
pub(crate) enum Lost {
    NotFound(NameNotFound),
    NotAContext(NotAContext),
    BadName(BadName),
    /// A context on the way was being deleted; it may be absent, or another one, by now.
    Closed(Gone),
    System(SystemError),
}

/// A context that has been deleted.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    /// The path under which it was made.
    pub(crate) path: String,
    pub(crate) context: NameContext,
}

/// A walk down from the root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk<'a> {
    pub(crate) cx: &'a Context,
    pub(crate) root: &'a NameContext,
    /// The path as it was asked for.
    pub(crate) path: &'a str,
    pub(crate) parts: &'a [&'a str],
}

impl Walk<'_> {
    /// What the whole path stands for.
    pub(crate) async fn entry(&self) -> Result<Entry, Lost> {
        let Some((name, parents)) = self.parts.split_last() else {
            return Ok(context_entry("", self.root));
        };
        let parent = self.context(parents.len(), false).await?;
        let found = parent.find(self.cx, name).await?;
        found.ok_or_else(|| self.not_found(parents.len()))
    }

    /// The context that the first `depth` parts stand for; made if absent and `make`.
    pub(crate) async fn context(&self, depth: usize, make: bool) -> Result<NameContext, Lost> {
        let mut context = self.root.clone();
        for (index, name) in self.parts[..depth].iter().enumerate() {
            let entry = match context.find(self.cx, name).await? {
                Some(entry) => entry,
                None if make => self.make(&context, index).await?,
                None => return Err(self.not_found(index)),
            };
            if !entry.context {
                let part = self.parts[..=index].join("/");
                return Err(NotAContext {
                    path: self.path.to_owned(),
                    part,
                }
                .into());
            }
            context = NameContext::from_uid(entry.object);
        }
        Ok(context)
    }

    /// Makes the context that part `index` is to stand for.
    ///
    /// First the object, then its name: a crash between the two leaves a context that nobody
    /// knows and that has no names, never a name without a context.
    async fn make(&self, parent: &NameContext, index: usize) -> Result<Entry, Lost> {
        let path = self.parts[..=index].join("/");
        let beside = Place::Beside(self.root.uid());
        let made = NameContext::create(self.cx, &beside, &path).await?;
        let entry = context_entry(self.parts[index], &made);
        match parent.put(self.cx, &entry, false).await {
            Ok(()) => Ok(entry),
            // Somebody else made it in the meantime: theirs is as good.
            Err(PutError::Taken(taken)) => Ok(taken.entry),
            Err(PutError::Closed(Closed { path })) => Err(Lost::Closed(Gone {
                path,
                context: parent.clone(),
            })),
            Err(PutError::System(error)) => Err(Lost::System(error)),
        }
    }

    /// The error for a path of which only the first `found` parts exist.
    pub(crate) fn not_found(&self, found: usize) -> Lost {
        let (path, missing) = (self.path.to_owned(), self.parts[found].to_owned());
        NameNotFound {
            path,
            found: self.parts[..found].join("/"),
            missing,
        }
        .into()
    }
}

/// The entry of a context.
fn context_entry(name: &str, context: &NameContext) -> Entry {
    Entry {
        name: name.to_owned(),
        object: context.uid(),
        class: NameContext::CLASS.0,
        context: true,
        hints: Vec::new(),
    }
}

impl Lost {
    /// As the error of an operation.
    pub(crate) fn raise<E>(self) -> E
    where
        E: From<NameNotFound> + From<NotAContext> + From<BadName> + From<SystemError>,
    {
        match self {
            Self::NotFound(error) => error.into(),
            Self::NotAContext(error) => error.into(),
            Self::BadName(error) => error.into(),
            Self::Closed(Gone { path, .. }) => {
                let detail = format!("the context '{path}' is being deleted again and again");
                SystemError::servant(detail).into()
            }
            Self::System(error) => error.into(),
        }
    }
}

impl From<NameNotFound> for Lost {
    fn from(error: NameNotFound) -> Self {
        Self::NotFound(error)
    }
}

impl From<NotAContext> for Lost {
    fn from(error: NotAContext) -> Self {
        Self::NotAContext(error)
    }
}

impl From<BadName> for Lost {
    fn from(error: BadName) -> Self {
        Self::BadName(error)
    }
}

impl From<SystemError> for Lost {
    fn from(error: SystemError) -> Self {
        Self::System(error)
    }
}
