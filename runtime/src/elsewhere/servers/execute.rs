//! A call of an object whose servant runs in a server process, as the object's shard makes it.
//!
//! It is made with the context of the call that it stands for, so its deadline and its action are
//! that one's, and what the servant calls in its process is reported as if it ran here. A call
//! that is given up is stopped at the process, and if that does not stop, the process is killed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use partha_wire::Message;

use super::keeper::Command;
use super::table::Server;
use super::{Key, Servers, wait};
use crate::abi::End;
use crate::elsewhere::{Done, Order};
use crate::error::{Completed, ErrorKind, Result, SystemError};
use crate::net::connection::lock;
use crate::rows::Changes;
use crate::system::{CallName, Executed, Execution, ExecutionEnd};
use crate::wire::frame::{self, Frame};

/// How long to wait for the news of a process's end, once its connection is gone.
const NEWS: Duration = Duration::from_secs(2);

/// A call under way; dropped before its end, it is stopped.
struct UnderWay<'a> {
    servers: &'a Servers,
    key: Key,
    server: Arc<Server>,
    execution: u64,
    what: &'a str,
    /// It has ended, with its process if not well.
    ended: bool,
}

/// Executes a call in the process that serves its object. One that only reads is executed again
/// if the process dies under it, once: a process that was dying already is not always seen to.
pub(crate) async fn execute(servers: &Arc<Servers>, key: Key, order: Order) -> Result<Done> {
    let deadline = Instant::now() + order.context.time_left();
    let info = order.class.info();
    let method = &info.methods[order.method];
    let what = format!("{}.{} of {}", info.name, method.name, order.context.uid());
    let mut execution = execution(&order).map_err(|error| error.context(&what))?;
    let branch = order.context.branch();
    let in_action = branch.is_some();
    if let Some(branch) = branch {
        // What the process calls is not known before it is called.
        branch.goes_out_for_good().await?;
    }
    let mut again = (!method.mutating || method.idempotent) && !in_action;
    loop {
        let server = servers.up(key, deadline).await?;
        execution.number = lock(&servers.table).execution();
        let mut under_way = UnderWay {
            servers,
            key,
            server: server.clone(),
            execution: execution.number,
            what: &what,
            ended: false,
        };
        match server.stub.execute(&order.context, &execution).await {
            Ok(executed) => {
                under_way.ended = true;
                lock(&servers.table).worked(key, server.number);
                let what = || format!("the answer of {}", key.describe());
                return returned(executed)
                    .map_err(|error| SystemError::from(error).context(what()));
            }
            Err(error) => {
                let error = under_way.failed(error).await;
                if !std::mem::take(&mut again) || !under_way.ended {
                    return Err(error);
                }
            }
        }
    }
}

/// What the process is told of a call.
fn execution(order: &Order) -> Result<Execution> {
    let Order {
        class,
        method,
        parameters,
        state,
        context,
    } = order;
    if !parameters.attached().is_empty() {
        let detail = "a call-back cannot be passed on to a class that has processes of its own: \
                      capabilities connect two parties only; serve the class in the node's \
                      process, or pass a reference to a persistent object";
        return Err(SystemError::new(ErrorKind::BadOperation, detail));
    }
    let info = class.info();
    let method = &info.methods[*method];
    Ok(Execution {
        number: 0,
        class: info.id.0,
        object: context.uid(),
        interface: method.interface.0,
        ordinal: method.ordinal,
        caller: context.caller().into(),
        call: context.call_id().map(|call| CallName {
            caller: call.caller.into(),
            sequence: call.sequence,
        }),
        foreign: context.is_foreign(),
        parameters: parameters.detached_segment()?.into(),
        state: state.clone().unwrap_or_default(),
    })
}

/// What came back.
fn returned(executed: Executed) -> Result<Done, partha_wire::DecodeError> {
    let Executed { end, answer, state } = executed;
    let end = match end {
        ExecutionEnd::Returned => End::Returned(frame::returned_elsewhere(answer.to_vec())?),
        ExecutionEnd::Raised => End::Raised(frame::returned_elsewhere(answer.to_vec())?),
        ExecutionEnd::Failed => {
            Message::from_framed(answer.clone(), Vec::new())?;
            let refusal = match frame::parse(answer)? {
                Frame::Return(answer) => answer.answer.outcome.err(),
                Frame::Invoke(_)
                | Frame::Cancel { .. }
                | Frame::Ping { .. }
                | Frame::Pong { .. }
                | Frame::Goodbye
                | Frame::Release { .. }
                | Frame::Action(_) => None,
            };
            let missing = || partha_wire::DecodeError::invalid("a Return frame with an error");
            End::Failed(refusal.ok_or_else(missing)?)
        }
    };
    Ok(Done {
        end,
        changes: Changes::new(),
        state: (!state.is_empty()).then_some(state),
    })
}

impl UnderWay<'_> {
    /// What an error that is not the servant's means for the caller.
    async fn failed(&mut self, error: SystemError) -> SystemError {
        let what = format!("{} at {}", self.what, self.key.describe());
        match error.kind() {
            ErrorKind::BindingBroken | ErrorKind::Unreachable | ErrorKind::Draining => {
                let end = match self.exit().await {
                    Some(exit) => {
                        self.ended = true;
                        exit
                    }
                    None => {
                        let why = "its connection to the node broke".to_owned();
                        let number = self.server.number;
                        lock(&self.servers.table).doubt(self.key, number);
                        // A keeper that is gone has ended it.
                        let _ = self.servers.order(Command::Kill { number, why });
                        error.detail().to_owned()
                    }
                };
                let detail = format!("{what}, process {}: {end}", self.server.pid);
                SystemError::new(ErrorKind::Servant, detail)
            }
            ErrorKind::Deadline => {
                // Whatever it does yet, the object does not learn of it; others whom it calls may.
                error.completed(Completed::No).handed_on(true).context(what)
            }
            ErrorKind::TooLarge => {
                let text = format!("{what}, which gets parameters and state in one message");
                error.context(text)
            }
            _ => error.context(what),
        }
    }

    /// How the process has ended, if it has, or does so soon.
    async fn exit(&self) -> Option<String> {
        let (key, number) = (self.key, self.server.number);
        let deadline = Instant::now() + NEWS;
        loop {
            let changes = lock(&self.servers.table).changes(key, number);
            let Some(mut changes) = changes else {
                let exit = lock(&self.servers.table).last_exit(key);
                return Some(exit.unwrap_or_else(|| "it is gone".to_owned()));
            };
            wait(&mut changes, deadline).await.ok()?;
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        lock(&self.servers.table).doubt(self.key, self.server.number);
        let stop = Command::Stop {
            key: self.key,
            server: self.server.clone(),
            execution: self.execution,
            what: self.what.to_owned(),
        };
        // A keeper that is gone has ended the process.
        let _ = self.servers.order(stop);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{KEY, kept, server};
    use super::*;

    #[tokio::test]
    async fn a_servant_that_was_late_may_have_called_others() {
        let (servers, _orders) = kept();
        let mut late = UnderWay {
            servers: &servers,
            key: KEY,
            server: Arc::new(server(1)),
            execution: 1,
            what: "Class.method",
            ended: false,
        };
        let error = SystemError::new(ErrorKind::Deadline, "10 s have passed");
        let error = late.failed(error.completed(Completed::Maybe)).await;
        // The object is as before.
        assert_eq!(error.completion(), Completed::No);
        assert!(error.has_begun() && !error.is_safe_to_retry(), "{error}");
    }
}
