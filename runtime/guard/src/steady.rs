//! A capability that is safe to call whatever it has become.
//!
//! capnp-rpc's client of a promise goes on as a front of what the promise was resolved to. A call
//! with capabilities in its parameters that is made on such a front after it was resolved to
//! something of this process (an object, an error) is copied without its table of capabilities,
//! and panics. A peer can bring that about by resolving a promise it has passed. A [`steady`]
//! capability asks for what is behind the front before each call; and where capnp-rpc calls it for
//! a peer, it forwards the call itself, so that capabilities in the result are steady as well.
//!
//! Nor may a promise of this process (the result of a call not yet answered) be exported: when it
//! is resolved, capnp-rpc puts the bare front in its place. [`settled`] waits for it instead.

use std::cell::Cell;

use capnp::any_pointer;
use capnp::capability::{Promise, Request};
use capnp::private::capability::{ClientHook, ParamsHook, ResultsHook};
use futures_util::TryFutureExt;

use crate::flat::Flat;
use crate::ticket::{observe, until_cancelled};

/// The same capability, safe to call and to export.
pub(crate) fn steady(hook: Box<dyn ClientHook>) -> Box<dyn ClientHook> {
    if is_steady(hook.as_ref()) {
        hook
    } else {
        Box::new(Steady(hook))
    }
}

/// What is behind all fronts that are resolved.
pub(crate) fn innermost(hook: &dyn ClientHook) -> Box<dyn ClientHook> {
    let mut innermost = hook.add_ref();
    while let Some(resolved) = innermost.get_resolved() {
        innermost = resolved;
    }
    innermost
}

/// Waits until `hook` is no promise of this process; one that fails has settled, too.
pub(crate) async fn settled(hook: &dyn ClientHook) {
    loop {
        let innermost = innermost(hook);
        if innermost.get_brand() != 0 {
            return;
        }
        let Some(resolved) = innermost.when_more_resolved() else {
            return;
        };
        if resolved.await.is_err() {
            return;
        }
    }
}

/// Calls `hook` and waits for the result.
///
/// `make` makes a capability of a number of ours; `own` says which capabilities are ours.
pub(crate) async fn send(
    hook: Box<dyn ClientHook>,
    interface: u64,
    method: u16,
    params: Flat,
    make: impl Fn(u64) -> Box<dyn ClientHook>,
    own: impl FnMut(&dyn ClientHook) -> Option<u64>,
) -> capnp::Result<Flat> {
    params.settle().await;
    let mut request = innermost(hook.as_ref()).new_call(interface, method, None);
    params.copy_to(request.hook.get(), make)?;
    let response = request.hook.send().promise.await?;
    let (pointer, seen) = observe(|| response.hook.get());
    Flat::copy_from(pointer?, seen.as_ref(), own)
}

thread_local! {
    /// Set by each [`Steady`] that is asked for its address: the only way to know one behind its
    /// trait object.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

fn is_steady(hook: &dyn ClientHook) -> bool {
    ASKED.set(false);
    hook.get_ptr();
    ASKED.take()
}

struct Steady(Box<dyn ClientHook>);

impl ClientHook for Steady {
    fn add_ref(&self) -> Box<dyn ClientHook> {
        Box::new(Self(self.0.add_ref()))
    }

    fn new_call(
        &self,
        interface: u64,
        method: u16,
        size_hint: Option<capnp::MessageSize>,
    ) -> Request<any_pointer::Owned, any_pointer::Owned> {
        innermost(self.0.as_ref()).new_call(interface, method, size_hint)
    }

    fn call(
        &self,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), capnp::Error> {
        let target = innermost(self.0.as_ref());
        if target.get_brand() == 0 {
            return target.call(interface, method, params, results);
        }
        Promise::from_future(forward(target, interface, method, params, results))
    }

    fn get_brand(&self) -> usize {
        self.0.get_brand()
    }

    fn get_ptr(&self) -> usize {
        let address = self.0.get_ptr();
        ASKED.set(true);
        address
    }

    fn get_resolved(&self) -> Option<Box<dyn ClientHook>> {
        self.0.get_resolved().map(steady)
    }

    fn when_more_resolved(&self) -> Option<Promise<Box<dyn ClientHook>, capnp::Error>> {
        self.0
            .when_more_resolved()
            .map(|promise| Promise::from_future(promise.map_ok(steady)))
    }

    fn when_resolved(&self) -> Promise<(), capnp::Error> {
        self.0.when_resolved()
    }
}

/// Passes a call of one peer on to another peer, or back to the same.
fn forward(
    target: Box<dyn ClientHook>,
    interface: u64,
    method: u16,
    params: Box<dyn ParamsHook>,
    mut results: Box<dyn ResultsHook>,
) -> impl Future<Output = capnp::Result<()>> {
    let (pointer, seen) = observe(|| params.get());
    let flat = pointer.and_then(|pointer| Flat::copy_from(pointer, seen.as_ref(), |_| None));
    let admission = seen.and_then(|seen| seen.admission);
    let none_is_ours = |_| {
        capnp_rpc::new_broken_cap(capnp::Error::failed("not an object of ours".to_owned())).hook
    };
    async move {
        let answer = async {
            let flat = send(target, interface, method, flat?, none_is_ours, |_| None).await?;
            flat.settle().await;
            Ok(flat)
        };
        until_cancelled(answer, admission)
            .await?
            .copy_to(results.get()?, none_is_ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_made_steady_once() {
        let broken = capnp_rpc::new_broken_cap(capnp::Error::failed("broken".to_owned())).hook;
        assert!(!is_steady(broken.as_ref()));
        let address = broken.get_ptr();
        let once = steady(broken);
        assert!(is_steady(once.as_ref()));
        let twice = steady(once.add_ref());
        assert!(is_steady(twice.as_ref()));
        assert_eq!(twice.get_ptr(), address);
        assert!(twice.get_resolved().is_none());
    }
}
