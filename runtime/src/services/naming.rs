//! The naming service: stubs and skeletons of `runtime/idl/naming.idl`, and names as text.

use std::fmt;

use partha_core::id::{ClassId, Uid};

use crate::caller::{CallOptions, Caller};
use crate::client::LOOKUP_DEADLINE;
use crate::error::{ErrorKind, Result, SystemError};

pub use super::generated::naming::*;

/// The naming service of a system.
///
/// Names are paths from the root; a slash in front makes no difference.
pub struct Naming {
    address: Option<String>,
    service: NameService,
}

impl Naming {
    /// The one that listens at this address; none for one that this very process is.
    pub(crate) fn new(address: Option<String>) -> Self {
        let service = NameService::from_uid(Uid::NAMING_ROOT);
        Self { address, service }
    }

    /// Where it listens; none if it is this very process.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// The service itself, for what is not offered here.
    #[must_use]
    pub fn service(&self) -> &NameService {
        &self.service
    }

    /// What a name stands for.
    ///
    /// # Errors
    /// `NameNotFound`, naming the deepest part that exists.
    pub async fn lookup(&self, caller: &impl Caller, path: &str) -> Result<Entry> {
        let caller = CallOptions::new(caller.scope()).deadline(LOOKUP_DEADLINE);
        let found = self.service.lookup(&caller, path).await;
        found.map_err(|error| match error {
            name_service::LookupError::NameNotFound(e) => not_found(path, &e),
            name_service::LookupError::NotAContext(e) => not_a_context(path, &e),
            name_service::LookupError::BadName(e) => bad_name(path, &e),
            name_service::LookupError::System(e) => self.context(e, path),
        })
    }

    /// Gives an object a name, making the contexts on the way.
    ///
    /// # Errors
    /// With the service's own words, as [`name_service::AddError`].
    pub async fn add(
        &self,
        caller: &impl Caller,
        path: &str,
        object: Uid,
        class: ClassId,
    ) -> Result<(), name_service::AddError> {
        let caller = named(caller);
        self.service
            .add(&caller, path, object, class.0, &[], true)
            .await
    }

    /// Lets a name stand for an object whatever it stood for before.
    ///
    /// # Errors
    /// With the service's own words, as [`name_service::RebindError`].
    pub async fn rebind(
        &self,
        caller: &impl Caller,
        path: &str,
        object: Uid,
        class: ClassId,
        hints: &[String],
    ) -> Result<(), name_service::RebindError> {
        let caller = named(caller);
        self.service
            .rebind(&caller, path, object, class.0, hints, true)
            .await
    }

    /// Takes a name away.
    ///
    /// # Errors
    /// With the service's own words, as [`name_service::DeleteError`].
    pub async fn delete(
        &self,
        caller: &impl Caller,
        path: &str,
    ) -> Result<(), name_service::DeleteError> {
        self.service.delete(&named(caller), path).await
    }

    /// A page of the names in a context, those after `after`.
    ///
    /// # Errors
    /// With the service's own words, as [`name_service::ListError`].
    pub async fn list(
        &self,
        caller: &impl Caller,
        path: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Entry>, name_service::ListError> {
        self.service.list(caller, path, after, limit).await
    }

    fn context(&self, error: SystemError, path: &str) -> SystemError {
        error.context(format_args!("looking up '{path}' at {self}"))
    }
}

/// The caller with a call id, so that a repeated request changes nothing twice.
fn named(caller: &impl Caller) -> CallOptions {
    let mut scope = caller.scope();
    if scope.call.is_none() {
        scope.call = Some(scope.client.new_call_id());
    }
    CallOptions::new(scope)
}

fn not_found(path: &str, error: &NameNotFound) -> SystemError {
    let found = if error.found.is_empty() {
        "the root"
    } else {
        &error.found
    };
    let detail = format!("'{path}': {found} exists, but has no '{}'", error.missing);
    SystemError::new(ErrorKind::NameNotFound, detail)
}

fn not_a_context(path: &str, error: &NotAContext) -> SystemError {
    let detail = format!(
        "'{path}': '{}' is an object, not a context with names",
        error.part
    );
    SystemError::new(ErrorKind::NameNotFound, detail)
}

fn bad_name(path: &str, error: &BadName) -> SystemError {
    SystemError::new(
        ErrorKind::NameNotFound,
        format!("'{path}': {}", error.reason),
    )
}

impl fmt::Debug for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Naming({:?})", self.address)
    }
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "the naming service {address}"),
            None => f.write_str("the naming service of this process"),
        }
    }
}
