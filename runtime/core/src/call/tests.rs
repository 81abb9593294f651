//! One call from arrival to answer: every state and input.

use super::*;

const SAVED: Traits = Traits {
    mode: Mode::Write,
    save: true,
    create: false,
    volatile: false,
    action: false,
};
const UNSAVED: Traits = Traits {
    save: false,
    ..SAVED
};
const READ: Traits = Traits {
    mode: Mode::Read,
    ..UNSAVED
};
const CREATE: Traits = Traits {
    create: true,
    ..SAVED
};
const VOLATILE: Traits = Traits {
    volatile: true,
    ..SAVED
};

const STAGES: [Stage; 7] = [
    Stage::Searching,
    Stage::Queued,
    Stage::Gated,
    Stage::Granted,
    Stage::Running,
    Stage::Flushing { state: true },
    Stage::Flushing { state: false },
];

const CUES: [Cue; 14] = [
    Cue::Searched { found: true },
    Cue::Searched { found: false },
    Cue::LockGranted,
    Cue::GateOpen,
    Cue::ImageReady,
    Cue::Returned(Ended::Normal),
    Cue::Returned(Ended::Raised),
    Cue::Returned(Ended::Failed),
    Cue::Returned(Ended::Killed),
    Cue::Flushed(Ok(())),
    Cue::Flushed(Err(Fault::Full)),
    Cue::Flushed(Err(Fault::Fenced)),
    Cue::Flushed(Err(Fault::Exists)),
    Cue::Abandoned(Orphan::Expired),
];

fn short(next: Next) -> &'static str {
    match next {
        Next::AnswerSaved => "saved",
        Next::AskLock => "lock",
        Next::AskGate => "gate",
        Next::Keep => "keep",
        Next::Undo => "undo",
        Next::WantImage => "image",
        Next::Dispatch => "run",
        Next::Flush {
            undo: false,
            state: true,
            reply: true,
            create: false,
        } => "flush",
        Next::Flush { .. } => "other flush",
        Next::Answer { discard: false } => "answer",
        Next::Answer { discard: true } => "undo+answer",
        Next::Refuse { discard: false, .. } => "refuse",
        Next::Refuse { discard: true, .. } => "undo+refuse",
        Next::Vanish => "vanish",
        Next::Kill(_) => "kill",
        Next::RunOn => "run on",
        Next::Mistake => "-",
    }
}

/// One line a stage, one word a cue, in the order of the constants above.
fn check(traits: Traits, expect: [&str; 7]) {
    for (stage, expect) in STAGES.into_iter().zip(expect) {
        let row: Vec<&str> = CUES
            .iter()
            .map(|cue| short(next(stage, *cue, traits)))
            .collect();
        let expect: Vec<&str> = expect.split(',').map(str::trim).collect();
        assert_eq!(row, expect, "{stage:?}, {traits:?}");
    }
}

#[test]
fn every_stage_and_cue_of_a_saved_write() {
    check(
        SAVED,
        [
            "saved, lock, -, -, -, -, -, -, -, -, -, -, -, vanish",
            "-, -, image, -, -, -, -, -, -, -, -, -, -, vanish",
            "-, -, -, image, -, -, -, -, -, -, -, -, -, vanish",
            "-, -, -, -, run, -, -, -, -, -, -, -, -, vanish",
            "-, -, -, -, -, flush, other flush, undo+answer, undo+answer, -, -, -, -, kill",
            "-, -, -, -, -, -, -, -, -, answer, undo+refuse, undo+refuse, undo+refuse, run on",
            "-, -, -, -, -, -, -, -, -, answer, refuse, refuse, refuse, run on",
        ],
    );
}

#[test]
fn a_call_in_an_action_takes_its_turn_and_leaves_the_rest_to_the_action() {
    let action = true;
    for traits in [UNSAVED, READ, CREATE, VOLATILE] {
        let traits = Traits {
            action,
            save: false,
            ..traits
        };
        assert_eq!(next(Stage::Queued, Cue::LockGranted, traits), Next::AskGate);
        assert_eq!(next(Stage::Gated, Cue::GateOpen, traits), Next::WantImage);
        let ended = |ended| next(Stage::Running, Cue::Returned(ended), traits);
        if traits.mode == Mode::Write && !traits.volatile {
            assert_eq!(ended(Ended::Normal), Next::Keep);
            assert_eq!(ended(Ended::Raised), Next::Undo);
            assert_eq!(ended(Ended::Failed), Next::Undo);
            assert_eq!(ended(Ended::Killed), Next::Undo);
        } else {
            for how in [Ended::Normal, Ended::Raised, Ended::Failed, Ended::Killed] {
                assert_eq!(ended(how), Next::Answer { discard: false });
            }
        }
    }
}

#[test]
fn what_is_flushed_and_undone_when_a_servant_ends() {
    let ended = |ended, traits| next(Stage::Running, Cue::Returned(ended), traits);
    let flush = |undo, state, reply, create| Next::Flush {
        undo,
        state,
        reply,
        create,
    };
    let answer = |discard| Next::Answer { discard };
    assert_eq!(ended(Ended::Normal, SAVED), flush(false, true, true, false));
    assert_eq!(
        ended(Ended::Normal, UNSAVED),
        flush(false, true, false, false)
    );
    assert_eq!(ended(Ended::Normal, CREATE), flush(false, true, true, true));
    assert_eq!(ended(Ended::Raised, SAVED), flush(true, false, true, false));
    assert_eq!(
        ended(Ended::Raised, CREATE),
        flush(true, false, true, false)
    );
    assert_eq!(ended(Ended::Raised, UNSAVED), answer(true));
    for traits in [SAVED, UNSAVED, CREATE] {
        assert_eq!(ended(Ended::Failed, traits), answer(true));
        assert_eq!(ended(Ended::Killed, traits), answer(true));
    }
    for traits in [READ, VOLATILE] {
        for how in [Ended::Normal, Ended::Raised, Ended::Failed, Ended::Killed] {
            assert_eq!(ended(how, traits), answer(false));
        }
    }
}

#[test]
fn a_taken_uid_is_the_callers_mistake_and_not_the_stores() {
    let flushed = |fault| {
        let stage = Stage::Flushing { state: true };
        let next = next(stage, Cue::Flushed(Err(fault)), CREATE);
        let Next::Refuse { refusal, .. } = next else {
            panic!("{next:?} is no refusal");
        };
        refusal
    };
    assert_eq!(flushed(Fault::Exists), Refusal::Exists);
    for fault in [Fault::Fenced, Fault::Full, Fault::Store] {
        assert_eq!(flushed(fault), Refusal::Store(fault));
    }
}
