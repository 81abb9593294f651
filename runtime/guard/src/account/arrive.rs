//! Messages of the peer.

use std::collections::hash_map::Entry;

use capnp::struct_list;
use capnp_rpc::rpc_capnp::{
    call, cap_descriptor, disembargo, message, message_target, promised_answer, resolve, return_,
};

use super::{
    Account, Answer, AnswerKey, Arrival, Fault, Import, not_in_schema, protocol, too_many,
    unsupported,
};
use crate::CutReason;
use crate::frame::Message;
use crate::reason::Table;

impl Account {
    pub(super) fn arrive_message(&mut self, root: message::Reader<'_>) -> Result<Arrival, Fault> {
        match root.which() {
            Ok(message::Bootstrap(bootstrap)) => {
                self.ask(bootstrap?.get_question_id(), 0, true)?;
            }
            Ok(message::Call(call)) => return self.arrive_call(call?),
            Ok(message::Return(answer)) => {
                self.arrive_return(answer?)?;
                return Ok(Arrival::Return);
            }
            Ok(message::Finish(finish)) => {
                let finish = finish?;
                return self
                    .arrive_finish(finish.get_question_id(), finish.get_release_result_caps());
            }
            Ok(message::Resolve(resolve)) => self.arrive_resolve(resolve?)?,
            Ok(message::Release(release)) => {
                let release = release?;
                self.release_export(release.get_id(), release.get_reference_count());
            }
            Ok(message::Disembargo(disembargo)) => self.arrive_disembargo(disembargo?)?,
            Ok(message::Unimplemented(message)) => self.arrive_unimplemented(message?)?,
            Ok(message::Abort(_)) => return Ok(Arrival::Abort),
            Ok(
                message::Provide(_)
                | message::Accept(_)
                | message::Join(_)
                | message::ObsoleteSave(_)
                | message::ObsoleteDelete(_),
            )
            | Err(capnp::NotInSchema(_)) => {}
        }
        Ok(Arrival::Plain)
    }

    fn arrive_call(&mut self, call: call::Reader<'_>) -> Result<Arrival, Fault> {
        match call.get_send_results_to().which().map_err(not_in_schema)? {
            call::send_results_to::Caller(()) => {}
            call::send_results_to::Yourself(()) | call::send_results_to::ThirdParty(_) => {
                return Err(unsupported("sendResultsTo other than the caller"));
            }
        }
        let target = self.target_depth(call.get_target()?)?;
        let params = self.import_table(call.get_params()?.get_cap_table()?, None)?;
        let key = self.ask(call.get_question_id(), target.max(params), false)?;
        Ok(Arrival::Call(key))
    }

    /// Enters a new question of the peer.
    fn ask(&mut self, question: u32, depth: usize, bootstrap: bool) -> Result<AnswerKey, Fault> {
        let entry = self.answers.entry(question);
        if let Entry::Occupied(old) = &entry
            && !(old.get().returned && old.get().finished)
        {
            return Err(protocol(format!("question id {question} is still in use")));
        }
        too_many(Table::PipelineDepth, depth, self.limits.pipeline_depth_max)?;
        if bootstrap {
            self.bootstraps += 1;
            too_many(
                Table::Bootstraps,
                self.bootstraps,
                self.limits.bootstraps_max,
            )?;
        }
        self.generations += 1;
        let generation = self.generations;
        let answer = Answer {
            generation,
            bootstrap,
            returned: false,
            finished: false,
            release: false,
            depth,
            exports: Vec::new(),
            settled: false,
            admission: None,
            held: None,
        };
        entry.insert_entry(answer);
        self.answers_open += 1;
        too_many(
            Table::Questions,
            self.answers.len(),
            self.limits.questions_max,
        )?;
        Ok(AnswerKey {
            question,
            generation,
        })
    }

    fn arrive_finish(&mut self, question: u32, release: bool) -> Result<Arrival, Fault> {
        let Some(answer) = self.answers.get_mut(&question) else {
            return Ok(Arrival::Plain);
        };
        if answer.finished {
            return Err(protocol(format!("question {question} was finished twice")));
        }
        answer.finished = true;
        answer.release = release;
        if let Some(admission) = &answer.admission {
            admission.cancel();
        }
        let key = AnswerKey {
            question,
            generation: answer.generation,
        };
        if answer.returned {
            self.close_answer(question);
        }
        Ok(Arrival::Finish(key))
    }

    /// A question of the peer is both returned and finished.
    pub(super) fn close_answer(&mut self, question: u32) -> Option<Message> {
        let answer = self.answers.remove(&question)?;
        if answer.bootstrap {
            self.bootstraps -= 1;
        }
        if answer.release {
            for export in answer.exports {
                self.release_export(export, 1);
            }
        }
        answer.held
    }

    fn arrive_return(&mut self, answer: return_::Reader<'_>) -> Result<(), Fault> {
        let id = answer.get_answer_id();
        let finished = match self.questions.get(&id) {
            Some(question) if !question.returned => question.finished,
            Some(_) | None => {
                return Err(protocol(format!(
                    "an answer to question {id}, which is not open"
                )));
            }
        };
        match answer.which().map_err(not_in_schema)? {
            // The capabilities of an answer nobody waits for are given back unseen.
            return_::Results(_) if finished => {}
            return_::Results(results) => {
                self.import_table(results?.get_cap_table()?, Some(id))?;
            }
            return_::Exception(_) => {}
            return_::Canceled(()) if finished => {}
            return_::Canceled(()) => {
                return Err(protocol(format!(
                    "question {id} was cancelled by its receiver"
                )));
            }
            return_::ResultsSentElsewhere(())
            | return_::TakeFromOtherQuestion(_)
            | return_::AcceptFromThirdParty(_) => {
                return Err(unsupported("results sent elsewhere"));
            }
        }
        self.questions_open -= 1;
        if finished || answer.get_no_finish_needed() {
            self.questions.remove(&id);
        } else if let Some(question) = self.questions.get_mut(&id) {
            question.returned = true;
        }
        Ok(())
    }

    fn arrive_resolve(&mut self, resolve: resolve::Reader<'_>) -> Result<(), Fault> {
        let promise = resolve.get_promise_id();
        let resolve::Cap(descriptor) = resolve.which().map_err(not_in_schema)? else {
            return Ok(());
        };
        let descriptor = descriptor?;
        let leak = |detail| Err(Fault::Cut(CutReason::LeakingResolve { promise, detail }));
        match descriptor.which().map_err(not_in_schema)? {
            cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id)
                if id == promise =>
            {
                return leak("to itself");
            }
            // An id that is known as a promise stays one here, whatever it is called now.
            cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id) => {
                let chain = self.imports.get(&promise).map_or(0, |import| import.chain) + 1;
                too_many(Table::PipelineDepth, chain, self.limits.pipeline_depth_max)?;
                self.import(id)?;
                if let Some(import) = self.imports.get_mut(&id) {
                    import.chain = import.chain.max(chain);
                }
            }
            cap_descriptor::ReceiverHosted(_) | cap_descriptor::ReceiverAnswer(_)
                if !self.is_settled(descriptor)? =>
            {
                return leak("to a call or a promise of ours that is still open");
            }
            cap_descriptor::None(())
            | cap_descriptor::ReceiverHosted(_)
            | cap_descriptor::ReceiverAnswer(_)
            | cap_descriptor::ThirdPartyHosted(_) => {
                self.import_descriptor(descriptor)?;
            }
        }
        Ok(())
    }

    fn arrive_disembargo(&mut self, disembargo: disembargo::Reader<'_>) -> Result<(), Fault> {
        if disembargo.has_target() {
            self.target_depth(disembargo.get_target()?)?;
        }
        Ok(())
    }

    /// The peer sends a message of ours back; a `Resolve` so returned releases its capability.
    fn arrive_unimplemented(&mut self, message: message::Reader<'_>) -> Result<(), Fault> {
        let Ok(message::Resolve(resolve)) = message.which() else {
            return Ok(());
        };
        let Ok(resolve::Cap(descriptor)) = resolve?.which() else {
            return Ok(());
        };
        if let Ok(cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id)) =
            descriptor?.which()
        {
            self.release_export(id, 1);
        }
        Ok(())
    }

    /// How many pending calls a call on this target would hang on.
    fn target_depth(&self, target: message_target::Reader<'_>) -> Result<usize, Fault> {
        match target.which().map_err(not_in_schema)? {
            message_target::ImportedCap(_) => Ok(0),
            message_target::PromisedAnswer(answer) => self.answer_depth(answer?),
        }
    }

    fn answer_depth(&self, answer: promised_answer::Reader<'_>) -> Result<usize, Fault> {
        let steps = answer.get_transform()?.len() as usize;
        too_many(Table::PipelineDepth, steps, self.limits.pipeline_depth_max)?;
        match self.answers.get(&answer.get_question_id()) {
            Some(answer) if !answer.returned => Ok(answer.depth + 1),
            Some(_) | None => Ok(0),
        }
    }

    /// Enters the capabilities of a payload; the result is the longest chain of pending calls
    /// they hang on. `question` is ours if these are its results.
    fn import_table(
        &mut self,
        table: struct_list::Reader<'_, cap_descriptor::Owned>,
        question: Option<u32>,
    ) -> Result<usize, Fault> {
        too_many(
            Table::Capabilities,
            table.len() as usize,
            self.limits.capabilities_max,
        )?;
        let mut depth = 0;
        for descriptor in table {
            if let Some(question) = question
                && !self.is_settled(descriptor)?
            {
                return Err(Fault::Cut(CutReason::LeakingReturn { question }));
            }
            depth = depth.max(self.import_descriptor(descriptor)?);
        }
        Ok(depth)
    }

    fn import_descriptor(
        &mut self,
        descriptor: cap_descriptor::Reader<'_>,
    ) -> Result<usize, Fault> {
        match descriptor.which().map_err(not_in_schema)? {
            cap_descriptor::None(()) | cap_descriptor::ReceiverHosted(_) => Ok(0),
            cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id) => {
                self.import(id)?;
                Ok(0)
            }
            cap_descriptor::ReceiverAnswer(answer) => self.answer_depth(answer?),
            cap_descriptor::ThirdPartyHosted(_) => Err(unsupported("third-party capabilities")),
        }
    }

    fn import(&mut self, id: u32) -> Result<(), Fault> {
        let import = self.imports.entry(id).or_insert(Import {
            references: 0,
            chain: 0,
        });
        import.references = import
            .references
            .checked_add(1)
            .ok_or_else(|| protocol(format!("import {id} has too many references")))?;
        too_many(Table::Imports, self.imports.len(), self.limits.imports_max)
    }

    /// Whether something the peer refers to cannot lead back to the place it is put in. What is
    /// unknown here may be known again by the time the message is delivered, so it is not.
    fn is_settled(&self, descriptor: cap_descriptor::Reader<'_>) -> Result<bool, Fault> {
        match descriptor.which().map_err(not_in_schema)? {
            cap_descriptor::ReceiverHosted(id) => {
                Ok(self.exports.get(&id).is_some_and(|export| export.settled))
            }
            cap_descriptor::ReceiverAnswer(answer) => {
                let answer = self.answers.get(&answer?.get_question_id());
                Ok(answer.is_some_and(|answer| answer.returned && answer.settled))
            }
            cap_descriptor::None(())
            | cap_descriptor::SenderHosted(_)
            | cap_descriptor::SenderPromise(_)
            | cap_descriptor::ThirdPartyHosted(_) => Ok(true),
        }
    }

    fn release_export(&mut self, id: u32, count: u32) {
        if let Some(export) = self.exports.get_mut(&id) {
            export.references = export.references.saturating_sub(count);
            if export.references == 0 {
                self.exports.remove(&id);
            }
        }
    }
}
