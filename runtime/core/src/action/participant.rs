//! What a participant does about a top-level action (two-phase commit with presumed abort).
//!
//! | state | prepare, fits | prepare, else | abort | abort, by the coordinator | commit | give up |
//! |---|---|---|---|---|---|---|
//! | Gone | – | vote No | note it | note it | acknowledge | – |
//! | Active | write it | abort; vote No | abort | abort | abort; acknowledge | abort |
//! | Aborting | – | vote No | nothing | nothing | acknowledge | nothing |
//! | Preparing | nothing | nothing | nothing | Preparing, doomed | nothing | nothing |
//! | Prepared | vote Yes | vote Yes | nothing | undo | install it | nothing |
//! | Installing | nothing | nothing | nothing | nothing | nothing | nothing |
//! | Deciding | nothing | nothing | [`super::coordinator`] | the same | nothing | nothing |
//!
//! | state | written | not written | installed | not installed |
//! |---|---|---|---|---|
//! | Preparing | Prepared; vote Yes | abort; vote No | – | – |
//! | Preparing, doomed | undo | abort | – | – |
//! | Installing | – | – | acknowledge; gone | Prepared: it will be asked again |
//!
//! `–` is a mistake of the engine or its shell and panics. A prepare *fits* if it names this
//! life and this mirror, and no call of the action runs or waits here: else the mirror lacks
//! what an earlier one did, or would go on changing. What was found prepared at start votes No,
//! if it is asked again: the vote of the earlier life may have named where objects of the action
//! went, and nobody here knows that any more; it stays bound. *Write it* means: what the nested
//! actions did that were aborted is undone, what the others did is the root's; if nothing changed
//! then, everything is freed and the vote is ReadOnly. *Abort* restores and frees. *Undo* does
//! too, after telling the store to drop what it wrote; nobody waits for that, since a restart
//! in between asks the coordinator once more. *Give up*: a caller is gone, or time is up. What
//! is prepared is bound by the coordinator's decision alone, so nobody else can end it.
//!
//! *By the coordinator* means: from its site. Where the decision is in the log of a replicated
//! object (the decider), that is no authority once prepared, since a later life of the site knows
//! nothing of it: the abort makes the participant ask whoever leads the decider, at once. To
//! *write it* is a part in the log of each replicated object besides, *install* and *undo* end
//! these parts; what is led elsewhere by then is left to who leads it ([`crate::engine`], `parts`).
//! What could not be written is undone, since some of the parts may be there.

/// How far a top-level action is here, as far as these tables look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Gone,
    Active,
    Aborting,
    Preparing { doomed: bool },
    Prepared,
    Installing,
    Deciding,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cue {
    Prepare { fits: bool },
    Abort { by_coordinator: bool },
    Commit,
    GiveUp,
    Written(bool),
    Installed(bool),
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// Write what it changed; Preparing. Or it is out, if that is nothing.
    Write,
    /// Prepared, and the vote is Yes.
    VoteYes,
    /// It is not known, or is aborted.
    VoteNo,
    /// Restore, free, vote No.
    AbortVoteNo,
    /// Restore and free.
    Abort,
    /// The same, after the store was told.
    Undo,
    /// The coordinator is noted to have said so.
    Doom,
    /// The action is noted to be aborted.
    Note,
    /// Write that it is committed; Installing.
    Install,
    /// Restore, free, acknowledge: a late message, and a mirror that a late call made.
    AbortAcknowledge,
    /// Tell the coordinator that nothing is left here.
    Acknowledge,
    /// It is committed: free, acknowledge.
    Finish,
    /// Prepared as before.
    Retry,
    /// The coordinator's tables say what to do.
    Coordinator,
    /// Somebody broke the rules.
    Mistake,
}

/// The machine: the tables of the module doc.
pub(crate) fn next(state: State, cue: Cue) -> Next {
    match (state, cue) {
        (State::Gone | State::Aborting, Cue::Prepare { fits: true }) => Next::Mistake,
        (State::Gone | State::Aborting, Cue::Prepare { fits: false }) => Next::VoteNo,
        (State::Gone, Cue::Abort { .. }) => Next::Note,
        (State::Gone | State::Aborting, Cue::Commit) => Next::Acknowledge,
        (State::Gone, Cue::GiveUp) => Next::Mistake,
        (State::Active, Cue::Prepare { fits: true }) => Next::Write,
        (State::Active, Cue::Prepare { fits: false }) => Next::AbortVoteNo,
        (State::Active, Cue::Abort { .. } | Cue::GiveUp) => Next::Abort,
        (State::Active, Cue::Commit) => Next::AbortAcknowledge,
        (State::Aborting, Cue::Abort { .. } | Cue::GiveUp) => Next::Nothing,
        (State::Preparing { .. }, Cue::Abort { by_coordinator }) if by_coordinator => Next::Doom,
        (
            State::Preparing { .. },
            Cue::Prepare { .. } | Cue::Commit | Cue::GiveUp | Cue::Abort { .. },
        ) => Next::Nothing,
        (State::Preparing { doomed }, Cue::Written(written)) => written_next(doomed, written),
        (State::Prepared, Cue::Prepare { .. }) => Next::VoteYes,
        (
            State::Prepared,
            Cue::GiveUp
            | Cue::Abort {
                by_coordinator: false,
            },
        ) => Next::Nothing,
        (
            State::Prepared,
            Cue::Abort {
                by_coordinator: true,
            },
        ) => Next::Undo,
        (State::Prepared, Cue::Commit) => Next::Install,
        (
            State::Installing,
            Cue::Prepare { .. } | Cue::Abort { .. } | Cue::Commit | Cue::GiveUp,
        ) => Next::Nothing,
        (State::Installing, Cue::Installed(true)) => Next::Finish,
        (State::Installing, Cue::Installed(false)) => Next::Retry,
        (State::Deciding, Cue::Prepare { .. } | Cue::Commit | Cue::GiveUp) => Next::Nothing,
        (State::Deciding, Cue::Abort { .. }) => Next::Coordinator,
        (
            State::Gone
            | State::Active
            | State::Aborting
            | State::Prepared
            | State::Installing
            | State::Deciding,
            Cue::Written(_),
        )
        | (
            State::Gone
            | State::Active
            | State::Aborting
            | State::Preparing { .. }
            | State::Prepared
            | State::Deciding,
            Cue::Installed(_),
        ) => Next::Mistake,
    }
}

/// What was to be prepared is on disk, or could not be written.
fn written_next(doomed: bool, written: bool) -> Next {
    match (doomed, written) {
        (false, true) => Next::VoteYes,
        (false, false) => Next::AbortVoteNo,
        (true, true) => Next::Undo,
        (true, false) => Next::Abort,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUES: [Cue; 10] = [
        Cue::Prepare { fits: true },
        Cue::Prepare { fits: false },
        Cue::Abort {
            by_coordinator: false,
        },
        Cue::Abort {
            by_coordinator: true,
        },
        Cue::Commit,
        Cue::GiveUp,
        Cue::Written(true),
        Cue::Written(false),
        Cue::Installed(true),
        Cue::Installed(false),
    ];

    #[test]
    fn every_row_of_the_tables() {
        use Next::{
            Abort, AbortAcknowledge, AbortVoteNo, Acknowledge, Coordinator, Doom, Finish, Install,
            Mistake, Note, Nothing, Retry, Undo, VoteNo, VoteYes, Write,
        };
        const BAD: Next = Mistake;
        const NO: Next = Nothing;
        #[rustfmt::skip]
        let rows = [
            (State::Gone, [BAD, VoteNo, Note, Note, Acknowledge, BAD, BAD, BAD, BAD, BAD]),
            (State::Active,
                [Write, AbortVoteNo, Abort, Abort, AbortAcknowledge, Abort, BAD, BAD, BAD, BAD]),
            (State::Aborting, [BAD, VoteNo, NO, NO, Acknowledge, NO, BAD, BAD, BAD, BAD]),
            (State::Preparing { doomed: false },
                [NO, NO, NO, Doom, NO, NO, VoteYes, AbortVoteNo, BAD, BAD]),
            (State::Preparing { doomed: true },
                [NO, NO, NO, Doom, NO, NO, Undo, Abort, BAD, BAD]),
            (State::Prepared, [VoteYes, VoteYes, NO, Undo, Install, NO, BAD, BAD, BAD, BAD]),
            (State::Installing, [NO, NO, NO, NO, NO, NO, BAD, BAD, Finish, Retry]),
            (State::Deciding, [NO, NO, Coordinator, Coordinator, NO, NO, BAD, BAD, BAD, BAD]),
        ];
        for (state, expected) in rows {
            assert_eq!(CUES.map(|cue| next(state, cue)), expected, "{state:?}");
        }
    }

    #[test]
    fn what_is_prepared_is_ended_by_its_coordinator_alone() {
        for cue in CUES {
            let next = next(State::Prepared, cue);
            let by_coordinator = true;
            let stays = [Next::Nothing, Next::VoteYes, Next::Mistake].contains(&next);
            let bound = stays
                || (next == Next::Undo && cue == Cue::Abort { by_coordinator })
                || (next == Next::Install && cue == Cue::Commit);
            assert!(bound, "{next:?} after {cue:?}");
        }
    }
}
