//! What will happen in a run.

use partha_core::action::message::{From, Message};
use partha_core::id::{CallId, Peer, Uid};
use partha_core::{Fault, Job as Work, Ticket};

use super::moves::{MoveNo, Stage};
use super::net::{ConnNo, Life, Request, Response};
use super::world::{CallNo, Place, RunNo, TaskNo};

/// Something that will happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Request {
        conn: ConnNo,
        request: Request,
    },
    Response {
        conn: ConnNo,
        response: Response,
    },
    /// The server notices the end of a connection.
    ServerLoses {
        conn: ConnNo,
    },
    /// The caller notices it.
    CallerLoses {
        conn: ConnNo,
    },
    Mail {
        node: usize,
        shard: usize,
        from: From,
        message: Box<Message>,
    },
    Search {
        at: Place,
        ticket: Ticket,
        call: CallId,
    },
    Load {
        at: Place,
        uid: Uid,
    },
    Decision {
        at: Place,
        work: Work,
        action: Uid,
        decider: Option<Uid>,
    },
    Returns {
        at: Place,
        ticket: Ticket,
    },
    /// A servant that was told to stop has stopped.
    Killed {
        at: Place,
        ticket: Ticket,
    },
    /// Nothing may be left of a process that is gone.
    Orphans {
        at: Place,
        of: Life,
    },
    /// Nothing may be left anywhere of what a process began that died a while ago.
    Extinct {
        of: Life,
    },
    /// Nothing may run in an action that was given up.
    GivenUp {
        at: Place,
        action: Uid,
    },
    /// The deadline of a call passed a while ago.
    Overdue {
        at: Place,
        ticket: Ticket,
    },
    /// Some object moves.
    Move,
    /// Something of a move happens.
    Moving {
        number: MoveNo,
        stage: Stage,
    },
    /// A leader is taken for dead.
    Suspect {
        uid: Uid,
        term: u64,
    },
    /// A node begins to lead.
    Leads {
        uid: Uid,
        term: u64,
        node: usize,
        life: u32,
    },
    /// A node hears that another leads.
    Deposed {
        uid: Uid,
        term: u64,
        node: usize,
        life: u32,
    },
    /// The first entry that was not complete is.
    Complete {
        uid: Uid,
        term: u64,
    },
    /// The end of a part could not be added.
    NotEnded {
        at: Place,
        uid: Uid,
        action: Uid,
    },
    /// A checkpoint could not be added.
    NotCheckpointed {
        at: Place,
        object: Uid,
        job: Work,
        fault: Fault,
    },
    /// A call of a cohort's object is made again.
    Resend {
        call: CallNo,
    },
    /// Another may lead an object than was told of the end of an action there.
    TellAgain {
        from: Life,
        uid: Uid,
        term: u64,
        pause: u64,
        message: Box<Message>,
    },
    /// A process that called in an action which was taken over is looked for.
    Watched {
        at: Place,
        caller: Peer,
    },
    /// A settled decision goes.
    Forget {
        uid: Uid,
        action: Uid,
    },
    DiskDone {
        node: usize,
        life: u32,
    },
    Timer {
        at: Place,
    },
    Step {
        task: TaskNo,
    },
    /// The caller waits no longer.
    Patience {
        call: CallNo,
    },
    /// The time of an action is up.
    Expires {
        run: RunNo,
    },
    /// No answer to a commit, or none to the question about it.
    AskAgain {
        run: RunNo,
        asked: u32,
    },
    Next {
        client: Life,
    },
    Reborn {
        client: usize,
    },
    Restart {
        node: usize,
    },
    /// A node dies, if that is its life still.
    Dies {
        node: usize,
        life: u32,
    },
    Fault,
    Watch,
}
