//! Telling the binder where objects have gone.
//!
//! The binder's row of a moved object is a hint with a number that only grows, so telling it late,
//! twice or out of order does no harm; not telling it costs those who look for the object the way
//! over its birth node.

use std::time::Duration;

use super::Locator;
use super::binder::binder::MovedError;
use super::binder::{MOVED_MAX, MovedObject};
use super::pauses::Pauses;
use crate::client::{Client, LOOKUP_DEADLINE};
use crate::error::{ErrorKind, Result, SystemError};

/// Pause after the first attempt that failed. It doubles with each further one.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);

impl Locator {
    /// Tells the binder of objects that have moved, in batches, and tries for as long as it takes:
    /// the binder may be away. Answers when it has written all of them. Dropping it is harmless;
    /// what has been told stays told.
    ///
    /// # Errors
    /// `NameNotFound` at once where no binder can be found by a naming service, since then there is
    /// nobody to tell; those of a binder that does not take them, such as one of an older version.
    pub async fn tell_moved(&self, client: &Client, objects: &[MovedObject]) -> Result<()> {
        client.naming_address()?;
        for batch in objects.chunks(MOVED_MAX) {
            let mut pauses = Pauses::new(PAUSE, PAUSE_MAX);
            while let Err(error) = self.tell(client, batch).await {
                pauses.after(error, "telling of moved objects").await?;
            }
        }
        Ok(())
    }

    async fn tell(&self, client: &Client, objects: &[MovedObject]) -> Result<()> {
        let binder = self.binder(client).await?;
        let caller = client.call().deadline(LOOKUP_DEADLINE);
        let told = binder.moved(&caller, objects).await;
        told.map(drop).map_err(|error| match error {
            MovedError::TooManyMoved(error) => {
                let detail = format!("the binder takes {} moved objects at a time", error.limit);
                SystemError::new(ErrorKind::TooLarge, detail)
            }
            MovedError::System(error) => error,
        })
    }
}
