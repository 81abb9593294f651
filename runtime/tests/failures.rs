//! What a failed call tells its caller, and what the library does about it by itself: whether the
//! operation was executed is never a guess, and nothing is sent twice that may not be.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::Duration;

use common::behaviour::counter::GiveError;
use common::behaviour::{Counter, Listener, listener};
use common::meddler::{Meddle, Meddler};
use common::{PATIENCE, client_of, counter, node, run, stop};
use partha::{Client, Completed, Context, ErrorKind, Failure, Node, SystemError, Uid};
use test_support::{TempDir, temp_dir};

const STATUS: [Completed; 3] = [Completed::No, Completed::Maybe, Completed::Yes];

/// Kinds that are about the way to an object: the same call may find another one.
const OF_THE_WAY: [ErrorKind; 4] = [
    ErrorKind::NoSuchObject,
    ErrorKind::Unreachable,
    ErrorKind::BindingBroken,
    ErrorKind::Draining,
];

/// A node, a client that reaches it through a meddler, one that reaches it directly, and an
/// object.
struct Scene {
    _dir: TempDir,
    node: Node,
    meddler: Meddler,
    client: Client,
    direct: Client,
    object: Counter,
}

/// How a method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// Changes the object; twice is not as good as once.
    Add,
    /// Changes the object; twice is as good as once.
    Set,
    /// Only reads.
    Value,
}

impl Scene {
    async fn open() -> Self {
        let dir = temp_dir("failures");
        let node = node(dir.path()).await;
        let direct = client_of(&node).await;
        let object = counter(&direct, &node, 0).await;
        let meddler = Meddler::new(node.address()).await;
        let client = Client::alone().unwrap();
        let locator = client.locator();
        locator
            .introduce(&client, &meddler.address())
            .await
            .unwrap();
        Self {
            _dir: dir,
            node,
            meddler,
            client,
            direct,
            object,
        }
    }

    /// Calls the method once while these things happen to it: the error, if any, how often it
    /// was sent, and the value afterwards, which was 0.
    async fn call(
        &self,
        method: Method,
        script: &[Meddle],
    ) -> (Result<(), SystemError>, usize, i64) {
        self.object.set(&self.direct, 0).await.unwrap();
        self.meddler.watch(self.object.uid(), script);
        let answer = match method {
            Method::Add => self.object.add(&self.client, 1).await.map(drop),
            Method::Set => self.object.set(&self.client, 1).await,
            Method::Value => self.object.value(&self.client).await.map(drop),
        };
        let sent = self.meddler.sent();
        let value = self.object.value(&self.direct).await.unwrap();
        (answer, sent, value)
    }
}

/// The documented meaning, told apart from how the library finds it.
fn meaning(kind: ErrorKind, completed: Completed, has_begun: bool) -> Failure {
    use ErrorKind as K;
    match (kind, completed) {
        (_, Completed::Yes) => Failure::Executed,
        (K::Fenced | K::OldIncarnation, _) => Failure::Fenced,
        (K::Deadline, _) if !has_begun => Failure::Deadline,
        (K::BindingBroken, _) if !has_begun => Failure::BindingBroken,
        (_, Completed::Maybe) => Failure::Unknown,
        (K::Deadlock | K::ActionAborted, _) => Failure::Aborted,
        (K::Servant, _) => Failure::Undone,
        (K::Moved, _) if !has_begun => Failure::Moved,
        _ if has_begun => Failure::Undone,
        _ => Failure::NotSent,
    }
}

#[test]
fn a_peer_that_dies_leaves_a_doubt_and_only_what_bears_it_is_sent_again() {
    run(async {
        let scene = Scene::open().await;
        let cuts = [Meddle::CutBefore, Meddle::CutAfter, Meddle::CutWithin];
        for cut in cuts {
            let (answer, sent, value) = scene.call(Method::Add, &[cut]).await;
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BindingBroken, "{cut:?}");
            assert_eq!(error.completion(), Completed::Maybe, "{cut:?}");
            assert_eq!(error.failure(), Failure::BindingBroken, "{cut:?}");
            assert!(!error.is_safe_to_retry(), "{cut:?}");
            let executed = i64::from(cut != Meddle::CutBefore);
            assert_eq!((sent, value), (1, executed), "{cut:?}");
            // Under its name it can be asked for, and was executed once after all.
            let again = scene.client.call().again(error.call().unwrap());
            assert_eq!(scene.object.add(&again, 1).await.unwrap(), 1, "{cut:?}");

            for method in [Method::Set, Method::Value] {
                let (answer, sent, _) = scene.call(method, &[cut, cut]).await;
                answer.unwrap();
                assert_eq!(sent, 3, "{method:?}, {cut:?}");
            }
        }
        stop(scene.node).await;
    });
}

#[test]
fn every_refusal_means_what_the_table_says() {
    run(async {
        let scene = Scene::open().await;
        for kind in ErrorKind::ALL {
            for completed in STATUS {
                for has_begun in [false, true] {
                    check(&scene, *kind, completed, has_begun).await;
                }
            }
        }
        stop(scene.node).await;
    });
}

async fn check(scene: &Scene, kind: ErrorKind, completed: Completed, has_begun: bool) {
    let refusal = Meddle::Refuse(kind, completed, has_begun);
    let has_begun = has_begun || kind == ErrorKind::Servant;
    for method in [Method::Add, Method::Set, Method::Value] {
        let is_repeatable = method != Method::Add;
        let what = format!("{method:?}, {refusal:?}");
        let (answer, sent, _) = scene.call(method, &[refusal]).await;
        let is_harmless = completed == Completed::No || is_repeatable;
        if OF_THE_WAY.contains(&kind) && !has_begun && is_harmless {
            assert_eq!((answer, sent), (Ok(()), 2), "{what}");
            continue;
        }
        let error = answer.expect_err(&what);
        assert_eq!(sent, 1, "{what}");
        assert_eq!((error.kind(), error.completion()), (kind, completed));
        assert_eq!(error.has_begun(), has_begun, "{what}");
        let meant = meaning(kind, completed, has_begun);
        assert_eq!(error.failure(), meant, "{what}");
        let is_untouched = completed == Completed::No && !has_begun;
        let is_safe = is_untouched || is_repeatable;
        assert_eq!(error.is_safe_to_retry(), is_safe, "{what}");
        assert_eq!(error.call().is_some(), !is_repeatable, "{what}");
    }
}

#[test]
fn a_place_that_denies_the_object_is_asked_twice_and_no_more() {
    run(async {
        let scene = Scene::open().await;
        let denial = Meddle::Refuse(ErrorKind::NoSuchObject, Completed::No, false);
        let (answer, sent, value) = scene.call(Method::Add, &[denial; 5]).await;
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSuchObject);
        assert_eq!(error.failure(), Failure::NotSent);
        assert_eq!((sent, value), (2, 0));
        stop(scene.node).await;
    });
}

#[test]
fn what_an_earlier_attempt_may_have_done_is_not_forgotten() {
    run(async {
        let scene = Scene::open().await;
        // The first attempt is executed, the second is turned away.
        let full = Meddle::Refuse(ErrorKind::Overloaded, Completed::No, false);
        let (answer, sent, value) = scene.call(Method::Set, &[Meddle::CutAfter, full]).await;
        let error = answer.unwrap_err();
        assert_eq!((sent, value), (2, 1));
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert_eq!(error.failure(), Failure::Unknown, "{error}");
        assert!(error.is_safe_to_retry(), "the method is idempotent");

        // After the first attempt nobody is there any more.
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nowhere = nobody.local_addr().unwrap();
        drop(nobody);
        scene.object.set(&scene.direct, 0).await.unwrap();
        scene
            .meddler
            .watch(scene.object.uid(), &[Meddle::CutBefore]);
        scene.meddler.lead_to(nowhere);
        let soon = scene.client.call().deadline(Duration::from_millis(300));
        let error = scene.object.set(&soon, 1).await.unwrap_err();
        assert_eq!(error.completion(), Completed::Maybe, "{error}");
        assert_eq!(scene.meddler.sent(), 1);

        // What was not sent at all is known not to be executed, although the search for the
        // object had its own failed calls.
        let soon = scene.client.call().deadline(Duration::from_millis(300));
        let error = scene.object.add(&soon, 1).await.unwrap_err();
        assert_eq!(error.completion(), Completed::No, "{error}");
        assert_eq!(error.failure(), Failure::NotSent, "{error}");
        assert!(error.is_safe_to_retry());
        assert_eq!(scene.meddler.sent(), 1);
        stop(scene.node).await;
    });
}

/// Does not know what it has done.
struct Doubtful;

impl listener::Servant for Doubtful {
    async fn heard(&self, _cx: &Context, _value: i64) -> partha::Result<i64> {
        let error = SystemError::new(ErrorKind::Unreachable, "somebody else");
        Err(error.completed(Completed::Maybe))
    }
}

#[test]
fn what_a_transient_object_did_is_not_taken_for_reading() {
    run(async {
        let scene = Scene::open().await;
        let listener = Listener::serve(&scene.client, Doubtful).unwrap();
        let error = listener.heard(&scene.client, 1).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Unknown, "{error}");
        assert!(!error.is_safe_to_retry());
        // Told by an object, the object's own method has failed, which only reads.
        scene.meddler.watch(scene.object.uid(), &[]);
        let error = scene.object.tell(&scene.client, &listener).await;
        let error = error.unwrap_err();
        assert_eq!(scene.meddler.sent(), 1, "it is not told twice");
        assert_eq!(error.failure(), Failure::Unknown, "{error}");
        assert!(error.is_safe_to_retry());
        stop(scene.node).await;
    });
}

#[test]
fn a_call_whose_object_is_not_found_was_not_sent() {
    run(async {
        let scene = Scene::open().await;
        // Binding the object takes a call of its own, which fails, perhaps executed.
        let failed = Meddle::Refuse(ErrorKind::Store, Completed::Maybe, true);
        let manager = Uid::connection_manager(scene.node.me().node);
        scene.meddler.watch(manager, &[failed]);
        let error = scene.object.add(&scene.client, 1).await.unwrap_err();
        assert_eq!(scene.meddler.sent(), 1);
        assert_eq!(error.kind(), ErrorKind::Store);
        assert_eq!(error.failure(), Failure::NotSent, "{error}");
        assert!(error.is_safe_to_retry());
        assert_eq!(scene.object.add(&scene.client, 1).await.unwrap(), 1);
        stop(scene.node).await;
    });
}

#[test]
fn what_a_servant_met_is_not_taken_for_the_way_to_it() {
    run(async {
        let scene = Scene::open().await;
        scene.object.set(&scene.direct, 10).await.unwrap();
        scene.meddler.watch(scene.object.uid(), &[]);
        let nobody = Counter::from_uid(Uid {
            node: scene.node.me().node,
            local: scene.object.uid().local + 1_000_000,
        });
        let given = scene.object.give(&scene.client, &nobody, 1).await;
        let Err(GiveError::System(error)) = given else {
            panic!("{given:?}");
        };
        assert_eq!(scene.meddler.sent(), 1, "the servant ran once");
        assert_eq!(error.kind(), ErrorKind::NoSuchObject);
        assert_eq!(error.failure(), Failure::Undone);
        assert!(!error.is_safe_to_retry());
        let call = error.call().unwrap();
        assert_eq!(call.caller, scene.client.me(), "it is named by its own id");
        assert_eq!(scene.object.value(&scene.direct).await.unwrap(), 10);

        // The same for a caller in the process of the node, whose errors do not travel.
        let given = scene.object.give(scene.node.client(), &nobody, 1).await;
        let Err(GiveError::System(error)) = given else {
            panic!("{given:?}");
        };
        assert_eq!(error.failure(), Failure::Undone);
        let call = error.call().unwrap();
        let again = scene.node.client().call().again(call);
        let Err(GiveError::System(error)) = scene.object.give(&again, &nobody, 1).await else {
            panic!("it went well");
        };
        assert_eq!(
            (error.failure(), error.call()),
            (Failure::Undone, Some(call))
        );
        stop(scene.node).await;
    });
}

#[test]
fn a_watch_ends_when_a_call_finds_the_object_gone() {
    run(async {
        let scene = Scene::open().await;
        let client = &scene.client;
        // A reference that was used by another client first has no binding of this one.
        let object = Counter::from_uid(scene.object.uid());
        object.value(client).await.unwrap();
        let watch = object.reference().binding(client).on_broken();
        let denial = Meddle::Refuse(ErrorKind::NoSuchObject, Completed::No, false);
        scene.meddler.watch(object.uid(), &[denial]);
        let watching = async { tokio::time::timeout(PATIENCE, watch).await.unwrap() };
        let (reason, value) = tokio::join!(watching, object.value(client));
        assert_eq!((value, scene.meddler.sent()), (Ok(0), 2));
        assert_eq!(reason.failure(), Failure::BindingBroken, "{reason}");
        stop(scene.node).await;
    });
}
