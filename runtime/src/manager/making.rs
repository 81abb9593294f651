//! Objects are made: the part of the manager that is asked for that, on the way to a shard.

use partha_core::action::path::Address;
use partha_core::id::{ClassId, Peer, Uid};
use tokio::sync::oneshot;

use super::stopping;
use crate::context::Context;
use crate::error::{Completed, Result};
use crate::hash::shard_of;
use crate::node::Home;
use crate::shard::{Incoming, ReplyTo, Waiting};
use crate::system::connection_manager::METHODS;
use crate::wire::context::CallContext;
use crate::wire::frame::{self, Target};

impl Home {
    /// Makes an object of a class of this node: with this identity, or with a new one.
    ///
    /// The shard that makes it is chosen by the call id, so that a repeated request meets the
    /// first one there; the new identity is one that belongs to the same shard.
    pub(crate) async fn make(
        &self,
        wanted: Option<Uid>,
        class: ClassId,
        arguments: &[u8],
        cx: &Context,
    ) -> Result<Uid> {
        let shards = self.shards.len() as u16;
        let object = match (wanted, cx.call_id()) {
            (Some(object), _) => object,
            (None, None) => self.new_uid()?,
            (None, Some(call)) => {
                let Peer { node, .. } = call.caller;
                let home = shard_of(
                    Uid {
                        node,
                        local: call.sequence,
                    },
                    shards,
                );
                loop {
                    let uid = self.new_uid()?;
                    if shard_of(uid, shards) == home {
                        break uid;
                    }
                }
            }
        };
        let method = &METHODS[2];
        let (mut w, slot) = frame::invoke(Target::Object(object), method.interface, method.ordinal);
        let parameters = w.structure(slot, 1, 2);
        let (deadline, call, trace) = (Some(cx.time_left()), cx.call_id(), cx.trace());
        let (actions, track) = cx.relay()?;
        CallContext {
            deadline,
            call,
            again: false,
            trace,
            actions,
        }
        .write(&mut w, parameters.slot(0));
        w.data(parameters.slot(1), arguments);
        let (sender, receiver) = oneshot::channel();
        let shard = self.shard(object);
        if let Some(track) = &track {
            track
                .reaching(Address::Site(self.site(shard.index())), None)
                .await?;
        }
        let open = shard.call(Incoming {
            object,
            interface: method.interface,
            method: method.ordinal,
            parameters: w.into_message()?.into_rooted(slot),
            caller: cx.caller(),
            reply: ReplyTo::Channel(sender),
            held: None,
            create: Some(class),
            number: None,
        });
        let waiting = Waiting(open);
        let gone = |_| stopping().completed(Completed::Maybe);
        let answer = receiver.await.map_err(gone)?;
        waiting.answered();
        if let Some(track) = track {
            track.answered(answer.outcome.as_ref().err(), answer.report.as_deref())?;
        }
        let made = crate::create::read_created(&answer.outcome?);
        made.map_err(|error| error.completed(Completed::Yes))
    }
}
