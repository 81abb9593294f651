//! Waiting for an answer.

use std::future::poll_fn;

use super::{Connection, lock};
use crate::net::pending::Answer;

/// A question that was asked on a connection. If it is dropped before its answer was there, the
/// peer is told that nobody waits any more.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    connection: &'a Connection,
    number: u32,
    is_over: bool,
}

impl<'a> Question<'a> {
    pub(super) fn new(connection: &'a Connection, number: u32) -> Self {
        Self {
            connection,
            number,
            is_over: false,
        }
    }

    /// The answer, or why there is none.
    pub(crate) async fn answer(mut self) -> Answer {
        let Connection {
            pending, stand_in, ..
        } = self.connection;
        let number = self.number;
        let answer = poll_fn(|task| {
            if let Some(stand_in) = stand_in.get().filter(|it| it.is_awaited()) {
                // It need not be woken for what it finds by itself.
                lock(pending).overlook(number);
                stand_in.come();
            }
            lock(pending).poll(number, task.waker())
        })
        .await;
        self.is_over = true;
        answer
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.connection.cancel(self.number);
        }
        if let Some(stand_in) = self.connection.stand_in.get() {
            stand_in.excuse();
        }
        // There may be room for another question.
        self.connection.call_next();
    }
}
