//! The object that the benchmarks call.

use partha::{Bytes, Context, Result};

use crate::generated::null::cell::{Servant, State};

/// Serves cells.
pub(crate) struct CellServant;

impl Servant for CellServant {
    fn new(&self) -> State {
        State { value: 0 }
    }

    async fn call(&self, _state: &State, _cx: &Context, value: u64) -> Result<u64> {
        Ok(value)
    }

    async fn bump(&self, state: &mut State, _cx: &Context) -> Result<u64> {
        state.value += 1;
        Ok(state.value)
    }

    async fn echo(&self, _state: &State, _cx: &Context, data: Bytes) -> Result<Bytes> {
        Ok(data)
    }

    async fn fill(&self, _state: &State, _cx: &Context, count: u32) -> Result<Bytes> {
        Ok(vec![1; count as usize].into())
    }
}
