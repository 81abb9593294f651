//! A call that any copy of its object may answer, on its way to the nearest one.

use std::sync::Arc;

use super::{Callee, Request, ask};
use crate::binding::{Binding, Near};
use crate::error::{Completed, ErrorKind, SystemError};
use crate::net::connection::Connection;
use crate::net::pending::Answer;
use crate::shard::ShardHandle;
use crate::wire::frame;

impl Request {
    /// Whether a copy that does not lead may answer, as far as it is known here.
    pub(super) fn may_go_near(&self, binding: &Binding) -> bool {
        self.method.any_replica && !self.in_actions && binding.has_copies()
    }

    /// Asks the nearest copy, and whoever leads if that one cannot answer.
    pub(super) async fn send_to_nearest(mut self) -> Answer {
        let Callee::Object(binding) = &self.callee else {
            unreachable!("only called for an object");
        };
        let binding = binding.clone();
        let finding = binding.nearest(&self.scope.client);
        let limit = tokio::time::Instant::from_std(self.deadline);
        let found = tokio::time::timeout_at(limit, finding).await;
        if let Some((node, near)) = found.ok().flatten() {
            let answer = match near {
                Near::Here(shard) => self.ask_here(&shard).await,
                Near::There(connection) => self.ask_there(&connection).await,
            };
            match &answer.outcome {
                Err(error) if goes_to_leader(error) && !self.is_late() => {
                    tracing::debug!(%node, %error, "a copy does not answer");
                    binding.avoid(node);
                }
                _ => {
                    frame::recycle(self.w.take());
                    return answer;
                }
            }
            let (w, times) = self.with_times();
            times.set_deadline(w);
        }
        self.send_to_object(None).await
    }

    async fn ask_here(&mut self, shard: &ShardHandle) -> Answer {
        let Callee::Object(binding) = &self.callee else {
            unreachable!("only called for an object");
        };
        let object = binding.object();
        // What is delivered is given away.
        let kept = self.w.clone();
        let answer = self.deliver(shard, object).await;
        self.w = kept;
        answer
    }

    async fn ask_there(&mut self, connection: &Arc<Connection>) -> Answer {
        let (w, times) = self.with_times();
        ask(connection, w, times, None).await
    }
}

/// Whether the leader may answer what a copy has not: nothing was done, or the way is broken, and
/// reading twice is as good as once.
fn goes_to_leader(error: &SystemError) -> bool {
    let is_untouched = error.completion() == Completed::No;
    let is_broken = matches!(
        error.kind(),
        ErrorKind::BindingBroken | ErrorKind::Unreachable | ErrorKind::Draining
    );
    (is_untouched || is_broken) && !error.has_begun()
}
