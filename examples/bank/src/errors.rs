//! What a transfer's steps refuse, the transfer refuses.

use partha::ActionError;

use crate::account::{DepositError, WithdrawError};
use crate::audit_log::NoteError;
use crate::branch::TransferError;

impl From<WithdrawError> for TransferError {
    fn from(error: WithdrawError) -> Self {
        match error {
            WithdrawError::InsufficientFunds(error) => Self::InsufficientFunds(error),
            WithdrawError::BadAmount(error) => Self::BadAmount(error),
            WithdrawError::System(error) => Self::System(error),
        }
    }
}

impl From<DepositError> for TransferError {
    fn from(error: DepositError) -> Self {
        match error {
            DepositError::BadAmount(error) => Self::BadAmount(error),
            DepositError::System(error) => Self::System(error),
        }
    }
}

impl From<NoteError> for TransferError {
    fn from(error: NoteError) -> Self {
        match error {
            NoteError::BadReference(error) => Self::BadReference(error),
            NoteError::System(error) => Self::System(error),
        }
    }
}

/// A refusal of its program is the action's; why else it failed is told as it is.
impl From<ActionError<Self>> for TransferError {
    fn from(error: ActionError<Self>) -> Self {
        match error.cause() {
            Some(
                refusal @ (Self::InsufficientFunds(_) | Self::BadAmount(_) | Self::BadReference(_)),
            ) => refusal.clone(),
            Some(Self::System(_)) | None => Self::System(error.into()),
        }
    }
}
