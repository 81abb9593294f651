//! Messages of ours.

use capnp::struct_list;
use capnp_rpc::rpc_capnp::{cap_descriptor, message, resolve, return_};

use super::{Account, Export, Fault, not_in_schema, too_many};
use crate::frame::Message;
use crate::reason::Table;

impl Account {
    pub(super) fn depart_message(
        &mut self,
        root: message::Reader<'_>,
    ) -> Result<Option<Message>, Fault> {
        match root.which() {
            Ok(message::Return(answer)) => return self.depart_return(answer?),
            Ok(message::Call(call)) => {
                let call = call?;
                self.export_table(call.get_params()?.get_cap_table()?, None)?;
                self.asked(call.get_question_id());
                too_many(
                    Table::CallsOut,
                    self.questions.len(),
                    self.limits.calls_out_max,
                )?;
            }
            Ok(message::Bootstrap(bootstrap)) => {
                self.asked(bootstrap?.get_question_id());
            }
            Ok(message::Finish(finish)) => {
                let id = finish?.get_question_id();
                match self.questions.get_mut(&id) {
                    Some(question) if !question.returned => question.finished = true,
                    Some(_) | None => drop(self.questions.remove(&id)),
                }
            }
            Ok(message::Resolve(resolve)) => self.depart_resolve(resolve?)?,
            Ok(message::Release(release)) => {
                let release = release?;
                self.release_import(release.get_id(), release.get_reference_count());
            }
            Ok(_) | Err(capnp::NotInSchema(_)) => {}
        }
        Ok(None)
    }

    fn depart_return(&mut self, reply: return_::Reader<'_>) -> Result<Option<Message>, Fault> {
        let question = reply.get_answer_id();
        let mut exports = Vec::new();
        let mut settled = true;
        if let Ok(return_::Results(results)) = reply.which() {
            settled = self.export_table(results?.get_cap_table()?, Some(&mut exports))?;
        }
        let Some(answer) = self.answers.get_mut(&question) else {
            return Ok(None);
        };
        if !answer.returned {
            self.answers_open -= 1;
        }
        answer.returned = true;
        answer.settled = settled;
        answer.exports = exports;
        answer.admission = None;
        if answer.finished || reply.get_no_finish_needed() {
            return Ok(self.close_answer(question));
        }
        Ok(None)
    }

    fn depart_resolve(&mut self, resolve: resolve::Reader<'_>) -> Result<(), Fault> {
        let Ok(resolve::Cap(descriptor)) = resolve.which() else {
            return Ok(());
        };
        let settled = self.export(descriptor?, None)?;
        if let Some(promise) = self.exports.get_mut(&resolve.get_promise_id()) {
            promise.settled = settled;
        }
        Ok(())
    }

    /// Enters the capabilities of a payload of ours; says whether all are settled ones of ours.
    fn export_table(
        &mut self,
        table: struct_list::Reader<'_, cap_descriptor::Owned>,
        mut ids: Option<&mut Vec<u32>>,
    ) -> Result<bool, Fault> {
        let mut settled = true;
        for descriptor in table {
            settled &= self.export(descriptor, ids.as_deref_mut())?;
        }
        Ok(settled)
    }

    fn export(
        &mut self,
        descriptor: cap_descriptor::Reader<'_>,
        ids: Option<&mut Vec<u32>>,
    ) -> Result<bool, Fault> {
        let (id, settled) = match descriptor.which().map_err(not_in_schema)? {
            cap_descriptor::SenderHosted(id) => (id, true),
            cap_descriptor::SenderPromise(id) => (id, false),
            cap_descriptor::None(()) => return Ok(true),
            cap_descriptor::ReceiverHosted(_)
            | cap_descriptor::ReceiverAnswer(_)
            | cap_descriptor::ThirdPartyHosted(_) => return Ok(false),
        };
        let export = self.exports.entry(id).or_insert(Export {
            references: 0,
            settled,
        });
        export.references += 1;
        let settled = export.settled;
        if let Some(ids) = ids {
            ids.push(id);
        }
        too_many(Table::Exports, self.exports.len(), self.limits.exports_max)?;
        Ok(settled)
    }

    fn release_import(&mut self, id: u32, count: u32) {
        if let Some(import) = self.imports.get_mut(&id) {
            import.references = import.references.saturating_sub(count);
            if import.references == 0 {
                self.imports.remove(&id);
            }
        }
    }
}
