//! A method that reads gets its state to read only.

use codegen_corpus::evolved_old::book::{Servant, State};
use partha::{Context, Result};

struct Book;

impl Servant for Book {
    fn new(&self) -> State {
        State::default()
    }

    async fn pages(&self, state: &State, _cx: &Context) -> Result<u32> {
        state.pages += 1;
        Ok(state.pages)
    }
}

fn main() {}
