//! The operations of a counter, through either face.

use capnp::capability::Client as Hook;
use partha::abi::{Method, Struct, StructAt, StructReader, Writer, write_ref};
use partha::{Bytes, Client, Context, Ref, Result};

use super::behaviour::counter::{GiveError, METHODS, TakeError};
use super::behaviour::{Listener, Named, Pair, TooLittle, counter, listener, named};
use super::face::{Failure, How, Obj, Outcome, Way};
use super::foreign::{self, Answer, Parameters};

/// A listener of the native face.
struct Hears<F>(F);

impl<F: Fn(i64) -> i64 + Send + Sync + 'static> listener::Servant for Hears<F> {
    async fn heard(&self, _cx: &Context, value: i64) -> Result<i64> {
        Ok((self.0)(value))
    }
}

impl Obj {
    pub async fn value(&self, how: &How) -> Outcome<i64> {
        match &self.way {
            Way::Native { client, counter } => Ok(counter.value(&how.options(client)).await?),
            Way::Foreign(hook, _) => ask_i64(hook, 0, how, (0, 1), |_, _| {}).await,
        }
    }

    pub async fn add(&self, how: &How, amount: i64) -> Outcome<i64> {
        match &self.way {
            Way::Native { client, counter } => {
                Ok(counter.add(&how.options(client), amount).await?)
            }
            Way::Foreign(hook, _) => {
                ask_i64(hook, 1, how, (1, 1), |w, s| w.set_i64(s, 0, amount)).await
            }
        }
    }

    pub async fn take(&self, how: &How, amount: i64) -> Outcome<i64> {
        match &self.way {
            Way::Native { client, counter } => {
                let taken = counter.take(&how.options(client), amount).await;
                taken.map_err(|error| match error {
                    TakeError::TooLittle(error) => too_little(&error),
                    TakeError::System(error) => error.into(),
                })
            }
            Way::Foreign(hook, _) => {
                let answer = ask(hook, 2, how, (1, 1), |w, s| w.set_i64(s, 0, amount)).await?;
                value_or_raised(answer.results())
            }
        }
    }

    pub async fn set(&self, how: &How, value: i64) -> Outcome<()> {
        match &self.way {
            Way::Native { client, counter } => Ok(counter.set(&how.options(client), value).await?),
            Way::Foreign(hook, _) => ask(hook, 3, how, (1, 1), |w, s| w.set_i64(s, 0, value))
                .await
                .map(drop),
        }
    }

    pub async fn add_at_gate(&self, how: &How, amount: i64, gate: &str) -> Outcome<i64> {
        match &self.way {
            Way::Native { client, counter } => Ok(counter
                .add_at_gate(&how.options(client), amount, gate)
                .await?),
            Way::Foreign(hook, _) => {
                let fill = |w: &mut Writer, s: StructAt| {
                    w.set_i64(s, 0, amount);
                    w.text(s.slot(1), gate);
                };
                ask_i64(hook, 4, how, (1, 2), fill).await
            }
        }
    }

    pub async fn read_at_gate(&self, how: &How, gate: &str) -> Outcome<i64> {
        match &self.way {
            Way::Native { client, counter } => {
                Ok(counter.read_at_gate(&how.options(client), gate).await?)
            }
            Way::Foreign(hook, _) => {
                ask_i64(hook, 5, how, (0, 2), |w, s| w.text(s.slot(1), gate)).await
            }
        }
    }

    pub async fn panic(&self, how: &How) -> Outcome<()> {
        match &self.way {
            Way::Native { client, counter } => Ok(counter.panic(&how.options(client)).await?),
            Way::Foreign(hook, _) => ask(hook, 6, how, (0, 1), |_, _| {}).await.map(drop),
        }
    }

    pub async fn give_up(&self, how: &How) -> Outcome<()> {
        match &self.way {
            Way::Native { client, counter } => Ok(counter.give_up(&how.options(client)).await?),
            Way::Foreign(hook, _) => ask(hook, 7, how, (0, 1), |_, _| {}).await.map(drop),
        }
    }

    /// Gives to another object; none is what a careless program may pass.
    pub async fn give(&self, how: &How, to: Option<&Self>, amount: i64) -> Outcome<i64> {
        let to = to.map(|to| Ref::new(to.uid, counter::CLASS));
        let fill = |w: &mut Writer, s: StructAt| {
            w.set_i64(s, 0, amount);
            if let Some(to) = &to {
                write_ref(w, s.slot(1), to);
            }
        };
        match &self.way {
            Way::Native { client, counter } => {
                let options = how.options(client);
                let mut request = counter.reference().request(&options, &METHODS[8], 1, 2);
                request.arguments(fill);
                value_or_raised(request.send().await?.results()?)
            }
            Way::Foreign(hook, _) => {
                value_or_raised(ask(hook, 8, how, (1, 2), fill).await?.results())
            }
        }
    }

    /// Passes a listener that answers what `hear` says.
    pub async fn tell(
        &self,
        how: &How,
        hear: impl Fn(i64) -> i64 + Send + Sync + 'static,
    ) -> Outcome<i64> {
        match &self.way {
            Way::Native { client, counter } => {
                let listener = Listener::serve(client, Hears(hear))?;
                Ok(counter.tell(&how.options(client), &listener).await?)
            }
            Way::Foreign(hook, _) => {
                let mut parameters = Parameters::new(0, 2);
                parameters.capabilities.push(foreign::listener(hear));
                let fill = |w: &mut Writer, s: StructAt| foreign::write_hook(w, s.slot(1));
                let called = (counter::CLASS.0, METHODS[9].ordinal);
                let answer = foreign::call(hook, called, how, parameters, fill).await?;
                Ok(answer.results().i64(0))
            }
        }
    }

    pub async fn echo(&self, how: &How, data: &[u8]) -> Outcome<Bytes> {
        match &self.way {
            Way::Native { client, counter } => {
                Ok(counter.echo(&how.options(client), data.to_vec()).await?)
            }
            Way::Foreign(hook, _) => {
                let answer = ask(hook, 10, how, (0, 2), |w, s| w.data(s.slot(1), data)).await?;
                Ok(Bytes::copy_from_slice(answer.results().pointer(0).data()?))
            }
        }
    }

    pub async fn fill(&self, how: &How, bytes: u32) -> Outcome<Bytes> {
        match &self.way {
            Way::Native { client, counter } => {
                Ok(counter.fill(&how.options(client), bytes).await?)
            }
            Way::Foreign(hook, _) => {
                let answer = ask(hook, 11, how, (1, 1), |w, s| w.set_u32(s, 0, bytes)).await?;
                Ok(Bytes::copy_from_slice(answer.results().pointer(0).data()?))
            }
        }
    }

    pub async fn grow(&self, how: &How, bytes: u32) -> Outcome<()> {
        match &self.way {
            Way::Native { client, counter } => {
                Ok(counter.grow(&how.options(client), bytes).await?)
            }
            Way::Foreign(hook, _) => ask(hook, 12, how, (1, 1), |w, s| w.set_u32(s, 0, bytes))
                .await
                .map(drop),
        }
    }

    pub async fn put_row(&self, how: &How, key: &str, value: i64) -> Outcome<u64> {
        match &self.way {
            Way::Native { client, counter } => {
                Ok(counter.put_row(&how.options(client), key, value).await?)
            }
            Way::Foreign(hook, _) => {
                let answer = ask(hook, 13, how, (1, 2), fill_row(key, value)).await?;
                Ok(answer.results().u64(0))
            }
        }
    }

    pub async fn put_row_and_give_up(&self, how: &How, key: &str, value: i64) -> Outcome<()> {
        match &self.way {
            Way::Native { client, counter } => Ok(counter
                .put_row_and_give_up(&how.options(client), key, value)
                .await?),
            Way::Foreign(hook, _) => ask(hook, 14, how, (1, 2), fill_row(key, value))
                .await
                .map(drop),
        }
    }

    pub async fn rows(&self, how: &How, after: &str, limit: u32) -> Outcome<Vec<Pair>> {
        match &self.way {
            Way::Native { client, counter } => {
                Ok(counter.rows(&how.options(client), after, limit).await?)
            }
            Way::Foreign(hook, _) => {
                let fill = |w: &mut Writer, s: StructAt| {
                    w.text(s.slot(1), after);
                    w.set_u32(s, 0, limit);
                };
                let answer = ask(hook, 15, how, (1, 2), fill).await?;
                let list = answer.results().pointer(0).structures()?;
                Ok(list
                    .iter_structures()
                    .map(Pair::read)
                    .collect::<std::result::Result<_, _>>()?)
            }
        }
    }

    /// The derived class's own method.
    pub async fn name(&self, how: &How) -> Outcome<String> {
        let method = named::METHODS.last().unwrap();
        match &self.way {
            Way::Native { client, .. } => {
                Ok(Named::from_uid(self.uid).name(&how.options(client)).await?)
            }
            Way::Foreign(hook, _) => {
                let answer = ask_method(hook, method, how, (0, 1), |_, _| {}).await?;
                Ok(answer.results().pointer(0).text()?.to_owned())
            }
        }
    }

    /// A method that nobody has.
    pub async fn unknown_method(&self) -> Outcome<()> {
        static UNKNOWN: Method = Method {
            interface: counter::CLASS,
            ordinal: 999,
            name: "unknown",
            mutating: true,
            mode: partha::abi::Mode::Write,
            idempotent: false,
            blocking: false,
            any_replica: false,
            deadline_us: None,
        };
        match &self.way {
            Way::Native { client, counter } => {
                counter
                    .reference()
                    .request(client, &UNKNOWN, 0, 1)
                    .send()
                    .await?;
                Ok(())
            }
            Way::Foreign(hook, _) => ask_method(hook, &UNKNOWN, &How::default(), (0, 1), |_, _| {})
                .await
                .map(drop),
        }
    }

    /// A call whose parameters are smaller than they should be: all of them missing.
    pub async fn echo_of_nothing(&self) -> Outcome<usize> {
        match &self.way {
            Way::Native { client, counter } => {
                let request = counter.reference().request(client, &METHODS[10], 0, 1);
                let reply = request.send().await?;
                Ok(reply.results()?.pointer(0).data()?.len())
            }
            Way::Foreign(hook, _) => {
                let answer = ask(hook, 10, &How::default(), (0, 0), |_, _| {}).await?;
                Ok(answer.results().pointer(0).data()?.len())
            }
        }
    }

    /// The native client behind it.
    pub fn client(&self) -> Option<&Client> {
        match &self.way {
            Way::Native { client, .. } => Some(client),
            Way::Foreign(..) => None,
        }
    }
}

fn fill_row(key: &str, value: i64) -> impl FnOnce(&mut Writer, StructAt) {
    move |w, s| {
        w.text(s.slot(1), key);
        w.set_i64(s, 0, value);
    }
}

fn too_little(error: &TooLittle) -> Failure {
    Failure::TooLittle {
        have: error.have,
        wanted: error.wanted,
    }
}

/// The results of a method that raises `TooLittle`.
fn value_or_raised(r: StructReader<'_>) -> Outcome<i64> {
    if r.pointer(0).is_null() {
        return Ok(r.i64(0));
    }
    Err(match GiveError::read(r.pointer(0).structure()?)? {
        GiveError::TooLittle(error) => too_little(&error),
        GiveError::System(error) => error.into(),
    })
}

async fn ask_i64(
    hook: &Hook,
    method: usize,
    how: &How,
    size: (u16, u16),
    fill: impl FnOnce(&mut Writer, StructAt),
) -> Outcome<i64> {
    Ok(ask(hook, method, how, size, fill).await?.results().i64(0))
}

async fn ask(
    hook: &Hook,
    method: usize,
    how: &How,
    size: (u16, u16),
    fill: impl FnOnce(&mut Writer, StructAt),
) -> Outcome<Answer> {
    ask_method(hook, &METHODS[method], how, size, fill).await
}

async fn ask_method(
    hook: &Hook,
    method: &Method,
    how: &How,
    size: (u16, u16),
    fill: impl FnOnce(&mut Writer, StructAt),
) -> Outcome<Answer> {
    let called = (method.interface.0, method.ordinal);
    let parameters = Parameters::new(size.0, size.1);
    Ok(foreign::call(hook, called, how, parameters, fill).await?)
}
