//! Callers that serve their connection in its task's place.

use std::pin::{Pin, pin};
use std::task::{Context, Waker};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::Id;

use super::*;
use crate::net::connection::Question;
use crate::net::socket::Writer as Socket;
use crate::net::stand_in;

/// By which tasks a connection was served; none is what the test itself runs in.
type Served = Arc<Mutex<Vec<Option<Id>>>>;

/// A connection that callers may serve, and what answers at its other end.
async fn met() -> (Arc<Connection>, Served, Arc<Connection>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let make = || connection(|hello| hello.taking(MESSAGE_BYTES_MAX), Traffic::default());
    let (here, there) = (make(), make());
    let (reader, writer) = theirs.unwrap().0.into_split();
    tokio::spawn(run(reader, writer, there.clone(), Echo::default()));
    let (reader, half) = ours.unwrap().into_split();
    let socket = Socket::new(half);
    here.write_past(socket.past());
    let served = Served::default();
    let noted = served.clone();
    let mut serving = Box::pin(run(reader, socket, here.clone(), Echo::default()));
    let noting = poll_fn(move |task| {
        lock(&noted).push(tokio::task::try_id());
        serving.as_mut().poll(task)
    });
    stand_in::spawn(&here, noting);
    // The task is served once, and knows the way.
    assert_eq!(ask(&here, &Bytes::new()).await.unwrap().len(), 0);
    lock(&served).clear();
    (here, served, there)
}

fn call(connection: &Connection) -> Question<'_> {
    let later = Instant::now() + Duration::from_secs(60);
    connection.call(&mut invoke(&Bytes::new()), later).unwrap()
}

fn poll(answer: Pin<&mut impl Future<Output = Answer>>) -> Poll<Answer> {
    answer.poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits until something is so of which nobody is told.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_caller_that_is_alone_takes_its_answer_and_the_task_is_not_woken() {
    const CALLS: usize = 20;
    let (here, served, _there) = met().await;
    for _ in 0..CALLS {
        ask(&here, &Bytes::new()).await.unwrap();
    }
    let by = lock(&served).clone();
    assert!(by.iter().all(Option::is_none), "{by:?}");
    assert!((CALLS..=2 * CALLS).contains(&by.len()), "{by:?}");
}

#[tokio::test]
async fn of_several_calls_the_task_takes_the_answers() {
    let (here, served, _there) = met().await;
    let (one, other) = (Bytes::new(), Bytes::from_static(b"other"));
    let (first, second) = tokio::join!(ask(&here, &one), ask(&here, &other));
    assert_eq!((first.unwrap(), second.unwrap()), (one, other));
    assert!(lock(&served).iter().any(Option::is_some));
}

#[tokio::test]
async fn a_caller_that_does_not_come_holds_nobody_up() {
    let (here, served, there) = met().await;
    let mut stuck = pin!(call(&here).answer());
    assert!(poll(stuck.as_mut()).is_pending());
    // Others do not wait for it.
    ask(&here, &Bytes::new()).await.unwrap();
    assert!(poll(stuck.as_mut()).is_ready());

    // Nor does what the peer says, when there are no others.
    let mut stuck = pin!(call(&here).answer());
    assert!(poll(stuck.as_mut()).is_pending());
    lock(&served).clear();
    there.send_short(&Frame::Goodbye);
    until("the task has heard it", || !here.is_usable()).await;
    assert!(lock(&served).iter().all(Option::is_some));
    assert!(poll(stuck.as_mut()).is_ready());
}

#[tokio::test]
async fn a_caller_that_goes_leaves_the_rest_to_the_task() {
    let (here, _served, _there) = met().await;
    for _ in 0..20 {
        let mut leaving = Box::pin(call(&here).answer());
        assert!(poll(leaving.as_mut()).is_pending());
        tokio::task::yield_now().await;
        drop(leaving);
        ask(&here, &Bytes::new()).await.unwrap();
    }
    let are_over = || here.open_questions() == 0;
    until("what was given up is answered, too", are_over).await;
}

#[tokio::test]
async fn the_end_is_told_to_who_waits_and_leaves_nothing() {
    let (here, _served, there) = met().await;
    let silent = ErrorKind::BindingBroken;
    there.cut(&SystemError::new(silent, "for the test"));
    let ended = match here.call(&mut invoke(&Bytes::new()), Instant::now()) {
        Ok(question) => question.answer().await.outcome.unwrap_err(),
        Err(refused) => refused.into(),
    };
    assert_eq!(ended.kind(), silent);
    let weak = Arc::downgrade(&here);
    drop(here);
    until("nothing keeps it", || weak.strong_count() == 0).await;
}

/// A caller of another runtime, whose timers are not the connection's, leaves it to the task.
#[tokio::test]
async fn a_caller_from_elsewhere_does_not_serve() {
    let (here, served, _there) = met().await;
    let end = here.clone();
    let elsewhere = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let asking = async { ask(&end, &Bytes::new()).await.map(|got| got.len()) };
        runtime.unwrap().block_on(asking)
    });
    assert_eq!(elsewhere.await.unwrap().unwrap(), 0);
    let by = lock(&served).clone();
    assert!(!by.is_empty() && by.iter().all(Option::is_some), "{by:?}");
}

/// Now one call is under way and now several, from several threads: no answer is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_answer_is_lost_between_callers_and_the_task() {
    const CALLERS: usize = 3;
    const CALLS: usize = 400;
    let (here, _served, _there) = met().await;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let here = here.clone();
        callers.spawn(async move {
            for call in 0..CALLS {
                let data = Bytes::from(vec![caller as u8; call % 50]);
                assert_eq!(ask(&here, &data).await.unwrap(), data);
                for _ in 0..(call * (caller + 1)) % 7 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    let patience = Duration::from_secs(60);
    let all = tokio::time::timeout(patience, callers.join_all());
    assert_eq!(all.await.unwrap().len(), CALLERS);
    assert_eq!(here.open_questions(), 0);
}
