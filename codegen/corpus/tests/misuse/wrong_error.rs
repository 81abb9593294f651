//! A method raises the exceptions of its own `raises` list alone.

use codegen_corpus::echo::echo::RaiseOnlyError;
use codegen_corpus::echo::{Broken, Point};

fn refuse() -> Result<(), RaiseOnlyError> {
    Err(Broken {
        at: Point::default(),
    })?;
    Ok(())
}

fn main() {}
