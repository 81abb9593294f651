//! Servants that work with counters in actions.

use partha::{ActionError, Context, Place, Result, SystemError};

use super::behaviour::counter::TakeError;
use super::behaviour::mover::{self, TransferAtomicallyError, TransferError};
use super::behaviour::{Counter, Mover};

pub struct MoverServant;

impl From<TakeError> for TransferError {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::TooLittle(error) => error.into(),
            TakeError::System(error) => error.into(),
        }
    }
}

impl From<TakeError> for TransferAtomicallyError {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::TooLittle(error) => error.into(),
            TakeError::System(error) => error.into(),
        }
    }
}

impl mover::Servant for MoverServant {
    fn new(&self) -> mover::State {
        mover::State { moves: 0 }
    }

    async fn moves(&self, state: &mover::State, _cx: &Context) -> Result<u64> {
        Ok(state.moves)
    }

    async fn transfer(
        &self,
        state: &mut mover::State,
        cx: &Context,
        from: Counter,
        to: Counter,
        amount: i64,
    ) -> Result<i64, TransferError> {
        state.moves += 1;
        from.take(cx, amount).await?;
        Ok(to.add(cx, amount).await?)
    }

    async fn transfer_atomically(
        &self,
        state: &mut mover::State,
        cx: &Context,
        from: Counter,
        to: Counter,
        amount: i64,
        fail: bool,
    ) -> Result<i64, TransferAtomicallyError> {
        state.moves += 1;
        let moved = cx.action(async |a| -> Result<i64, TransferAtomicallyError> {
            let sum = to.add(a, amount).await?;
            from.take(a, amount).await?;
            if fail {
                return Err(SystemError::servant("as asked").into());
            }
            Ok(sum)
        });
        moved.await.map_err(ActionError::flatten)
    }

    async fn pass_on(
        &self,
        state: &mut mover::State,
        cx: &Context,
        mut chain: Vec<Mover>,
        to: Counter,
        amount: i64,
    ) -> Result<u64> {
        state.moves += 1;
        if chain.is_empty() {
            to.add(cx, amount).await?;
            return Ok(1);
        }
        let next = chain.remove(0);
        Ok(1 + next.pass_on(cx, &chain, &to, amount).await?)
    }

    async fn note_apart(
        &self,
        state: &mut mover::State,
        cx: &Context,
        log: Counter,
        amount: i64,
        fail: bool,
    ) -> Result<i64> {
        state.moves += 1;
        let noted = cx
            .top_level(async |t| Ok::<_, SystemError>(log.add(t, amount).await?))
            .await?;
        match fail {
            true => Err(SystemError::servant("as asked")),
            false => Ok(noted),
        }
    }

    async fn make(&self, state: &mut mover::State, cx: &Context, value: i64) -> Result<Counter> {
        state.moves += 1;
        Counter::create(cx, &Place::Beside(cx.uid()), value, partha::Bytes::new()).await
    }

    async fn panic_between(
        &self,
        state: &mut mover::State,
        cx: &Context,
        first: Counter,
        second: Counter,
    ) -> Result<()> {
        state.moves += 1;
        first.add(cx, 1).await?;
        assert_eq!(first, second, "as asked");
        second.add(cx, 1).await?;
        Ok(())
    }

    async fn leave(
        &self,
        _state: &mut mover::State,
        cx: &Context,
        to: Counter,
        gate: String,
    ) -> Result<()> {
        let adding = to.add_at_gate(cx, 1, &gate);
        tokio::select! {
            added = adding => drop(added?),
            () = super::arrived(&gate, 1) => {}
        }
        Ok(())
    }
}
