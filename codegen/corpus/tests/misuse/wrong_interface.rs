//! A reference to a base is none to what is derived from it.

use codegen_corpus::bank::{Account, Savings};

fn savings(account: Account) -> Savings {
    account.into()
}

fn main() {}
