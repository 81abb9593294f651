//! What clients know to have happened, and whether the bank agrees.

use std::collections::BTreeSet;

use bank::{AuditLine, Statement};

/// Differences that are listed, at most.
const SHOWN_MAX: usize = 10;

/// One account, in a client's book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// Paid in less paid out, in cents.
    pub(super) amount: i64,
    /// How many amounts.
    pub(super) count: u64,
}

/// What one client knows, or all of them together.
#[derive(Clone, Debug)]
pub(super) struct Book {
    pub(super) accounts: Vec<Line>,
}

/// What one client knows of its transfers: the numbers of those that are committed.
pub(super) type Transfers = BTreeSet<u64>;

/// What a comparison says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) agree: bool,
    pub(super) text: String,
}

impl Book {
    /// Nothing has happened yet.
    pub(super) fn new(accounts: usize) -> Self {
        Self {
            accounts: vec![Line::default(); accounts],
        }
    }

    /// An amount was paid in, or out.
    pub(super) fn paid(&mut self, account: usize, amount: i64) {
        let line = &mut self.accounts[account];
        line.amount += amount;
        line.count += 1;
    }

    /// Takes another one in.
    pub(super) fn add(&mut self, other: &Self) {
        for (line, more) in self.accounts.iter_mut().zip(&other.accounts) {
            line.amount += more.amount;
            line.count += more.count;
        }
    }

    /// What all accounts hold together.
    pub(super) fn total(&self) -> i64 {
        self.accounts.iter().map(|line| line.amount).sum()
    }
}

/// Compares every account with the books: what it holds, and how many amounts it has seen.
pub(super) fn ledger(book: &Book, found: &[Statement], name: impl Fn(usize) -> String) -> Verdict {
    let count = book.accounts.len();
    let pairs = book.accounts.iter().zip(found).enumerate();
    let differ: Vec<_> = pairs
        .filter(|(_, (line, found))| (line.amount, line.count) != (found.balance, found.count))
        .map(|(index, (line, found))| {
            format!(
                "{} holds {} after {} payments, the books say {} after {}",
                name(index),
                found.balance,
                found.count,
                line.amount,
                line.count
            )
        })
        .collect();
    if differ.is_empty() && found.len() == count {
        let text = format!("ledger: {count} accounts agree");
        return Verdict { agree: true, text };
    }
    listed(
        format!("ledger: {} of {count} accounts differ", differ.len()),
        &differ,
    )
}

/// Whether nothing was made and nothing lost.
pub(super) fn total(book: &Book, found: &[Statement]) -> Verdict {
    let (expected, found) = (
        book.total(),
        found.iter().map(|one| one.balance).sum::<i64>(),
    );
    let agree = expected == found;
    let text = match agree {
        true => format!("total: {found} conserved"),
        false => format!("total: {found}, the books say {expected}"),
    };
    Verdict { agree, text }
}

/// Compares the audit logs with the transfers that are known to be committed: each is there, and
/// once, and nothing else is.
pub(super) fn audit(known: &[Transfers], logs: &[Vec<AuditLine>]) -> Verdict {
    let mut differ = Vec::new();
    for (client, (known, log)) in known.iter().zip(logs).enumerate() {
        let mut left = known.clone();
        for (index, line) in log.iter().enumerate() {
            let expected = index as u64 + 1;
            if line.number != expected {
                let number = line.number;
                differ.push(format!(
                    "client {client}: line {number} stands in place {expected}"
                ));
            }
            let transfer = line.reference.parse().ok();
            if !transfer.is_some_and(|transfer| left.remove(&transfer)) {
                let reference = &line.reference;
                differ.push(format!(
                    "client {client}: transfer {reference} is not known, or twice"
                ));
            }
        }
        let lost = left.iter();
        differ.extend(lost.map(|lost| format!("client {client}: transfer {lost} is not there")));
    }
    if differ.is_empty() {
        let count: usize = known.iter().map(Transfers::len).sum();
        let text = format!("audit: {count} transfers are there, each once");
        return Verdict { agree: true, text };
    }
    listed(format!("audit: {} lines differ", differ.len()), &differ)
}

fn listed(mut text: String, differ: &[String]) -> Verdict {
    for line in differ.iter().take(SHOWN_MAX) {
        text += &format!("\n  {line}");
    }
    if differ.len() > SHOWN_MAX {
        text += &format!("\n  … and {} more", differ.len() - SHOWN_MAX);
    }
    Verdict { agree: false, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bank::Account;
    use partha::Uid;

    fn book(amounts: &[i64]) -> Book {
        let mut book = Book::new(amounts.len());
        for (index, amount) in amounts.iter().enumerate() {
            book.paid(index, *amount);
        }
        book
    }

    fn found(balances: &[i64]) -> Vec<Statement> {
        let statement = |balance: &i64| Statement {
            owner: String::new(),
            balance: *balance,
            count: 1,
        };
        balances.iter().map(statement).collect()
    }

    fn line(number: u64, reference: &str) -> AuditLine {
        let account = Account::from_uid(Uid::NIL);
        AuditLine {
            number,
            reference: reference.to_owned(),
            from: account.clone(),
            to: account,
            amount: 1,
        }
    }

    fn name(index: usize) -> String {
        format!("account {index}")
    }

    #[test]
    fn books_that_agree_are_said_to() {
        let verdict = ledger(&book(&[5, 0, -1]), &found(&[5, 0, -1]), name);
        assert!(verdict.agree);
        assert_eq!(verdict.text, "ledger: 3 accounts agree");
        assert!(total(&book(&[5, -1]), &found(&[4, 0])).agree);
    }

    #[test]
    fn a_single_difference_is_found_and_shown() {
        let verdict = ledger(&book(&[5, 1, 7]), &found(&[5, 0, 7]), name);
        assert!(!verdict.agree);
        let expected = "ledger: 1 of 3 accounts differ\n  account 1 holds 0 after 1 payments, \
                        the books say 1 after 1";
        assert_eq!(verdict.text, expected);
        assert!(!total(&book(&[5, 1]), &found(&[5, 0])).agree);
        // The same amount, but paid in twice and out once.
        let mut twice = book(&[0]);
        twice.paid(0, 0);
        assert!(!ledger(&twice, &found(&[0]), name).agree);
        assert!(!ledger(&book(&[5]), &[], name).agree);
    }

    #[test]
    fn of_many_differences_the_first_are_shown() {
        let verdict = ledger(&book(&[1; 25]), &found(&[0; 25]), name);
        assert!(!verdict.agree && verdict.text.ends_with("… and 15 more"));
        assert_eq!(verdict.text.lines().count(), 1 + SHOWN_MAX + 1);
    }

    #[test]
    fn each_transfer_is_in_the_log_once_and_no_other() {
        let known = [Transfers::from([7, 9])];
        let audit = |lines: &[(u64, &str)]| {
            let log = lines.iter().map(|(number, text)| line(*number, text));
            audit(&known, &[log.collect()]).agree
        };
        assert!(audit(&[(1, "9"), (2, "7")]));
        assert!(!audit(&[(1, "9")]), "one is lost");
        assert!(
            !audit(&[(1, "9"), (2, "7"), (3, "7")]),
            "one is there twice"
        );
        assert!(!audit(&[(1, "9"), (2, "7"), (3, "8")]), "one was not made");
        assert!(!audit(&[(1, "9"), (3, "7")]), "a line is missing");
    }
}
