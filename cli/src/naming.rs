//! What the naming service refuses, in words for people.

use anyhow::{Error, anyhow};
use partha::services::naming::name_service::{AddError, DeleteError, ListError};
use partha::services::naming::{BadName, NameNotFound, NotAContext};
use partha::{ClassId, Client, Uid};

/// Gives an object a name.
pub(crate) async fn add(
    client: &Client,
    name: &str,
    object: Uid,
    class: ClassId,
) -> anyhow::Result<()> {
    let added = client.naming()?.add(client, name, object, class).await;
    added.map_err(|error| match error {
        AddError::NameExists(e) => anyhow!("the name '{name}' is taken by object {}", e.object),
        AddError::NameNotFound(e) => not_found(name, &e),
        AddError::NotAContext(e) => not_a_context(name, &e),
        AddError::BadName(e) => bad_name(name, &e),
        AddError::System(e) => Error::new(e).context(format!("cannot add the name '{name}'")),
    })
}

/// Takes a name away.
pub(crate) async fn delete(client: &Client, name: &str) -> anyhow::Result<()> {
    let deleted = client.naming()?.delete(client, name).await;
    deleted.map_err(|error| match error {
        DeleteError::NameNotFound(e) => not_found(name, &e),
        DeleteError::NotAContext(e) => not_a_context(name, &e),
        DeleteError::ContextNotEmpty(_) => {
            anyhow!("'{name}' is a context that still has names; `partha ls {name}` lists them")
        }
        DeleteError::BadName(e) => bad_name(name, &e),
        DeleteError::System(e) => {
            Error::new(e).context(format!("cannot take the name '{name}' away"))
        }
    })
}

/// Why a context could not be listed.
pub(crate) fn listing(path: &str, error: ListError) -> Error {
    match error {
        ListError::NameNotFound(e) => not_found(path, &e),
        ListError::NotAContext(e) => not_a_context(path, &e),
        ListError::BadName(e) => bad_name(path, &e),
        ListError::System(e) => Error::new(e).context(format!("cannot list '{path}'")),
    }
}

fn not_found(path: &str, error: &NameNotFound) -> Error {
    let found = match error.found.as_str() {
        "" => "the root".to_owned(),
        found => format!("'/{}'", found.trim_start_matches('/')),
    };
    anyhow!(
        "there is no '{path}': {found} has no name '{}'",
        error.missing
    )
}

fn not_a_context(path: &str, error: &NotAContext) -> Error {
    anyhow!(
        "there is no '{path}': '{}' is an object, and has no names below it",
        error.part
    )
}

fn bad_name(path: &str, error: &BadName) -> Error {
    anyhow!("'{path}' cannot be a name: {}", error.reason)
}
